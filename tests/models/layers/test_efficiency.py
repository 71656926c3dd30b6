"""Passes that cost less compute the same: one pass for all clips, channels-last, checkpointed blocks, compiled code."""

import copy

import pytest
import torch
from torch import nn

from models.builder import FewShotModel
from models.encoders.image import image_encoder
from models.layers.batch_norm import freeze_batch_norm
from models.layers.efficiency import CheckpointedStage, checkpoint_blocks, compiling, has_batch_statistics
from tests.conftest import TINY_TOWER
from tests.models.episodes import random_episode
from tests.models.tiny_model import model_of
from utils.errors import CompileError, ConfigError

TINY_RESNET = {**TINY_TOWER, "vision_cfg": {"image_size": 32, "layers": [1, 2, 1, 1], "width": 8, "head_width": 64}}

DEEPER_TOWER = {**TINY_TOWER, "vision_cfg": {**TINY_TOWER["vision_cfg"], "layers": 3}}


def learned(model: FewShotModel, count: int = 2) -> tuple[list[torch.Tensor], dict[str, torch.Tensor]]:
    """Logits of `count` episodes, and the gradients of their sum."""
    outputs = list(model.head.outputs([random_episode(i) for i in range(count)], model.text("train")))
    sum(o.logits_MK.square().sum() + o.aux["class_logits"].square().mean() for o in outputs).backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return [o.logits_MK.detach() for o in outputs], gradients


def calls_of(model: FewShotModel) -> list[int]:
    """Sizes of the passes through the tower, filled as they happen."""
    sizes: list[int] = []
    model.head.backbone.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    return sizes


def test_clips_pass_together_unless_a_batch_norm_would_mix_them():
    frozen = model_of(TINY_RESNET)
    for module in frozen.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    for model, expected in ((model_of(TINY_TOWER), [40]), (model_of(TINY_RESNET), [12, 8, 12, 8]), (frozen, [40])):
        assert has_batch_statistics(model.head.backbone) == (len(expected) > 1)
        sizes = calls_of(model)
        learned(model)
        assert sizes == expected


def test_one_pass_gives_what_passes_apart_give():
    together, apart = model_of(TINY_TOWER), model_of(TINY_TOWER)
    found = learned(together, 1)
    head, episode = apart.head, random_episode(0)
    output = head.output(episode, {role: head.encode(clips) for role, clips in episode.clips.items()},
                         apart.text("train"))
    (output.logits_MK.square().sum() + output.aux["class_logits"].square().mean()).backward()
    torch.testing.assert_close(found[0][0], output.logits_MK.detach(), rtol=1e-5, atol=1e-6)
    for name, parameter in apart.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(found[1][name], parameter.grad, rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize("tower", [TINY_TOWER, TINY_RESNET], ids=["vit", "resnet"])
def test_episodes_of_a_pass_are_as_if_each_came_alone(tower):
    together, apart = model_of(tower), model_of(tower)
    logits, gradients = learned(together, 3)
    for i in range(3):
        output = apart(random_episode(i), apart.text("train"))
        torch.testing.assert_close(logits[i], output.logits_MK.detach(), rtol=1e-5, atol=1e-6)
        (output.logits_MK.square().sum() + output.aux["class_logits"].square().mean()).backward()
    for name, parameter in apart.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-3, atol=5e-5)


@pytest.mark.parametrize("tower", [TINY_TOWER, TINY_RESNET], ids=["vit", "resnet"])
def test_channels_last_is_the_same_but_for_rounding(tower):
    plain, last = model_of(tower), model_of(tower)
    last.head.backbone.to(memory_format=torch.channels_last)
    assert plain.state_dict().keys() == last.state_dict().keys()
    (a, gradients_a), (b, gradients_b) = learned(plain), learned(last)
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gradients_a, gradients_b, rtol=1e-2, atol=1e-3)


def saved_bytes(model: FewShotModel) -> tuple[int, tuple]:
    """Bytes that the forward pass leaves for the backward pass, parameters aside; and what `learned` gives."""
    own, seen = {p.data_ptr() for p in model.parameters()}, {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() not in own:
            seen[tensor.data_ptr()] = max(tensor.nbytes, seen.get(tensor.data_ptr(), 0))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        features = model.head.encode(random_episode(0).support_NTCHW)["frames"]
    features.sum().backward()
    model.zero_grad()
    return sum(seen.values()), learned(model)


@pytest.mark.parametrize("tower", [DEEPER_TOWER, TINY_RESNET], ids=["vit", "resnet"])
def test_checkpointed_blocks_save_less_and_give_the_same_bits(tower):
    plain, saving = model_of(tower), model_of(tower)
    checkpoint_blocks(saving.head.backbone)
    (bytes_plain, found_plain), (bytes_saving, found_saving) = saved_bytes(plain), saved_bytes(saving)
    assert bytes_saving < 0.6 * bytes_plain
    torch.testing.assert_close(found_plain, found_saving, rtol=0, atol=0)
    torch.testing.assert_close(plain.state_dict(), saving.state_dict(), rtol=0, atol=0)  # statistics, too
    saving.eval()
    with torch.inference_mode():
        saving.head.encode(random_episode(0).support_NTCHW)
    assert copy.deepcopy(saving).state_dict().keys() == plain.state_dict().keys()


@pytest.mark.slow
@pytest.mark.parametrize("name, stages", [("resnet18", 4), ("resnet50", 4), ("mobilenet_v2", 1)])
@pytest.mark.parametrize("frozen", [False, True])
def test_checkpointed_image_towers_count_each_batch_once(name, stages, frozen):
    towers = []
    for _ in range(2):
        torch.manual_seed(0)
        towers.append(image_encoder(name=name, weights="random", weights_dir=None, reads_text=False).visual)
    plain, saving = towers
    parameters = list(saving.parameters())
    checkpoint_blocks(saving)
    assert sum(isinstance(module, CheckpointedStage) for module in saving.modules()) == stages
    assert all(a is b for a, b in zip(parameters, saving.parameters(), strict=True))
    for tower in towers:
        if frozen:
            freeze_batch_norm(tower)
        for seed in (0, 1):
            tower(torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(seed))).square().sum().backward()
    torch.testing.assert_close(plain.state_dict(), saving.state_dict(), rtol=0, atol=0)
    norm = next(module for module in saving.modules() if hasattr(module, "num_batches_tracked"))
    assert norm.num_batches_tracked == (0 if frozen else 2)
    gradients = [{name: p.grad for name, p in tower.named_parameters() if p.requires_grad} for tower in towers]
    torch.testing.assert_close(*gradients, rtol=0, atol=0)


@pytest.mark.parametrize("tower", [nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)), nn.Linear(2, 2)])
def test_towers_that_cannot_be_checkpointed_are_refused(tower):
    with pytest.raises(ConfigError, match="GRAD_CHECKPOINT: expected CLIP's towers, torchvision's ResNets or "
                                          "MobileNetV2, or a tower of open_clip without batch norms, found "
                                          + type(tower).__name__):
        checkpoint_blocks(tower)


@pytest.mark.slow
def test_compiled_code_trains_the_same_and_leaves_evaluation_alone(monkeypatch):
    """With dropout: the same draws."""
    plain, compiled = model_of(TINY_TOWER, 0.3), model_of(TINY_TOWER, 0.3)
    compiled.head.compile_training()
    assert plain.state_dict().keys() == compiled.state_dict().keys()
    found = []
    for model in (plain, compiled):
        torch.manual_seed(1)
        found.append(learned(model, 1))
    (a, gradients_a), (b, gradients_b) = found
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gradients_a, gradients_b, rtol=1e-2, atol=1e-3)

    def never(_: torch.Tensor) -> torch.Tensor:
        raise AssertionError

    monkeypatch.setattr(compiled.head, "_compiled", dict.fromkeys(compiled.head.parts(), never))
    compiled.eval()
    compiled(random_episode(0), compiled.text("train"))
    with pytest.raises(AssertionError):
        compiled.train()(random_episode(0), compiled.text("train"))


def test_a_machine_without_a_compiler_is_told_so():
    from torch._inductor import config, cpp_builder

    cpp_builder.cpp_compiler_search.cache_clear()
    model = model_of({**TINY_TOWER, "embed_dim": 64})
    model.head.backbone = torch.compile(nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 32), nn.Tanh()))
    with pytest.raises(CompileError, match="^TRAIN.COMPILE: torch.compile fails on this machine .*no-such-compiler.*"
                                           "TRAIN.COMPILE false trains without it$"), \
            config.patch({"cpp.cxx": (None, "no-such-compiler")}), compiling():
        model(random_episode(0), model.text("train"))
    cpp_builder.cpp_compiler_search.cache_clear()
