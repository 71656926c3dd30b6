"""What the baseline heads refuse, and what protocol clean does right where the public code fails."""

from itertools import combinations

import pytest
import torch
import torch.nn.functional as F

from models.heads import HEADS
from models.heads.base import Setting
from models.heads.trx import TemporalCrossTransformer
from models.layers.alignment import ALIGNMENTS, LARGEST_COST, mean_hausdorff, otam_distance
from models.layers.relation import Positions
from tests.golden.baselines import published_options
from tests.models.heads.small import FRAMES, WIDTH, episode_of, head_of
from utils.config import load_config
from utils.config.fields import keys_of
from utils.config.options import head_options
from utils.errors import ConfigError, HeadError


def head_with(name: str, setting: Setting, **options):
    """A head of the contract's tests with other options and data."""
    encoder = head_of(name)
    kind = HEADS[name]
    tower = type("Tower", (), {"visual": encoder.backbone, "dim": WIDTH, "pretraining": encoder.pretraining})
    return kind(tower, setting, head_options(kind.Options, options)).double()


@pytest.mark.parametrize("name, episodes, keys", [
    ("CNN_TRX", ((5, 1), (3, 1)), "TRAIN.WAY_TEST"),
    ("CNN_CrossTransformer", ((5, 1), (5, 5)), "TRAIN.SHOT_TEST"),
    ("CNN_CrossTransformer", ((5, 1), (4, 1)), "TRAIN.WAY_TEST"),
])
def test_other_episodes_in_the_test_are_refused_as_published_and_right_in_clean(name, episodes, keys):
    setting = Setting(FRAMES, 6, episodes=episodes)
    with pytest.raises(ConfigError, match=f"{keys}.*ONLY_PUBLISHED false"):
        head_with(name, setting)
    head = head_with(name, setting, ONLY_PUBLISHED=False).eval()
    with torch.no_grad():
        assert head(episode_of((2, 2), (1, 1)), None).logits_MK.isfinite().all()
    head_with(name, Setting(FRAMES, 6, episodes=((5, 1), (5, 1))))


@pytest.mark.parametrize("name, frames", [("CNN_HyRSM_1shot", 21), ("CNN_BiMHM_MoLo", 20)])
def test_more_than_twenty_positions_are_refused_as_published_and_there_in_clean(name, frames):
    with pytest.raises(ConfigError, match="DATA.NUM_INPUT_FRAMES: expected clips of at most 20 tokens.*found 21"):
        head_with(name, Setting(frames, 6))
    assert head_with(name, Setting(frames, 6), ONLY_PUBLISHED=False).pe.pe.shape[1] == 21


@pytest.mark.parametrize("name, options, text", [
    ("CNN_HyRSM_1shot", {"USE_CLASSIFICATION": True, "USE_LOCAL": True}, "USE_CLASSIFICATION_VALUE: expected a weight"),
    ("CNN_HyRSM_1shot", {"USE_CLASSIFICATION": True, "USE_CLASSIFICATION_VALUE": 1}, "USE_LOCAL: expected true"),
    ("CNN_BiMHM_MoLo", {"USE_CLASSIFICATION": True, "USE_CLASSIFICATION_VALUE": 1, "USE_LOCAL": True},
     "USE_LOCAL: expected false"),
    ("CNN_BiMHM_MoLo", {"MOTION_COFF": True}, "MOTION_COFF: expected false"),
    ("CNN_BiMHM_MoLo", {"USE_RECONS": True}, "RECONS_COFF: expected a weight"),
    ("CNN_HyRSM_1shot", {"HEAD": 5}, "HEAD: expected a divisor of the feature width 32, found 5"),
    ("CNN_HyRSM_1shot", {"NUM_CLASS": 4, "USE_CLASSIFICATION": True, "USE_CLASSIFICATION_VALUE": 1,
                         "USE_LOCAL": True}, "NUM_CLASS: expected at least 6"),
])
def test_options_that_do_not_go_together_are_refused(name, options, text):
    with pytest.raises(ConfigError, match=text):
        head_with(name, Setting(FRAMES, 6), **options)


@pytest.mark.parametrize("name", ["CNN_HyRSM_1shot", "CNN_HyRSM_plusplus_5shot", "CNN_BiMHM_MoLo"])
def test_clean_trains_clips_and_frames_with_every_loss(name):
    switches = {"USE_CLASSIFICATION": True, "USE_CLASSIFICATION_VALUE": 1.0, "ONLY_PUBLISHED": False,
                "USE_CONTRASTIVE": True, "USE_CONTRASTIVE_COFF": 1.0, "USE_MOTION": True, "USE_RECONS": True,
                "RECONS_COFF": 1.0, "TEMPORAL_LOSS_WEIGHT": 1.0, "USE_LOCAL": name == "CNN_BiMHM_MoLo"}
    own = {key: value for key, value in switches.items() if key in keys_of(HEADS[name].Options)}
    head = head_with(name, Setting(FRAMES, 6), **own)
    one = episode_of((2, 2), (1, 1))
    losses = head.losses(next(head.outputs([one], None)), one)
    sum(losses.values()).backward()
    without = {n for n, p in head.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.abs().sum())}
    assert without == head.untrained() and len(losses) >= 2


def test_protocols_differ_in_every_quirk(tmp_path):
    path = tmp_path / "x.yaml"
    found = []
    for protocol in ("upstream", "clean"):
        path.write_text(f"PROTOCOL: {protocol}\nVIDEO: {{HEAD: {{NAME: CNN_TSN}}}}\n")
        found.append(load_config(path).VIDEO.HEAD.OPTIONS)
    quirks = set(published_options()) & set(found[0])
    assert {"ONLY_PUBLISHED", "TEXTBOOK_POSITIONS", "FRAMES_DIVISOR", "COSINE_SCALE"} <= quirks
    assert all(found[0][key] != found[1][key] for key in quirks)


def test_textbook_positions_have_one_frequency_a_pair():
    published, textbook = (Positions(8, 8.0, 1.0, textbook=choice, length=20).pe[0] for choice in (False, True))
    squares = (textbook[:, ::2] ** 2 + textbook[:, 1::2] ** 2)
    torch.testing.assert_close(squares, torch.ones_like(squares))
    assert (published[:, ::2] ** 2 + published[:, 1::2] ** 2 - 1).abs().max() > 0.1


def test_bimhm_is_symmetric_and_its_mean_is_the_sum_over_frames():
    costs = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(0))
    both = ALIGNMENTS["bimhm"](costs)
    torch.testing.assert_close(both, ALIGNMENTS["bimhm"](costs.transpose(-1, -2)))
    torch.testing.assert_close(both / 4, mean_hausdorff(costs, average=True))
    assert (ALIGNMENTS["bimhm"](costs, smoothing=0.5, single_direction=True) < both).all()
    with pytest.raises(HeadError, match="expected at least one frame on each side"):
        mean_hausdorff(torch.zeros(2, 0, 3))


@pytest.mark.parametrize("cost", [0.5, 2.0, 40.0])
@pytest.mark.parametrize("frames", [1, 8, 64])
def test_otam_at_lambda_a_tenth_is_finite_for_any_frames_and_costs(frames, cost):
    """The public float32 loop underflows once a row of costs sums to a little over 10."""
    costs = torch.full((1, frames, frames), cost, requires_grad=True)
    found = (ALIGNMENTS["otam"] if cost < LARGEST_COST else otam_distance)(costs, smoothing=0.1)
    found.sum().backward()
    exact = ALIGNMENTS["otam_reference"](costs.detach().double(), smoothing=0.1)
    torch.testing.assert_close(found.detach().double(), exact, rtol=1e-5, atol=1e-5)
    assert costs.grad.isfinite().all() and costs.grad.sum() > 0


def test_unlabelled_clips_need_a_temperature_and_a_threshold():
    head = head_with("CNN_HyRSM_plusplus_semi", Setting(FRAMES, 6)).eval()
    one = episode_of((1, 1), (1, 1))
    object.__setattr__(one, "unlabelled_UTCHW", one.query_MTCHW)
    with torch.no_grad(), pytest.raises(HeadError, match="SEMI_TEMPORAL and SEMI_THRESHOLD"):
        head(one, None)


@torch.no_grad()
@pytest.mark.parametrize("name", ["CNN_HyRSM_1shot", "CNN_HyRSM_5shot"])
def test_products_of_related_frames_are_those_of_frames_that_are_made(name):
    head = head_of(name).eval()
    batch = head.batch(episode_of((2, 1, 2), (1, 1, 2)), None)
    support, there = head.supports(batch)
    tokens = head.temporal_atte(support["frames"].mean(dim=2), batch.query["frames"].mean(dim=2), there).relu()
    rows_BMUTD, rows_BMTD = (
        torch.cat([frames, token.unsqueeze(-2).expand_as(frames)], dim=-1) for frames, token in (
            (support["frames"].unsqueeze(1).expand(-1, tokens.shape[1], -1, -1, -1), tokens[:, :, :-1]),
            (batch.query["frames"], tokens[:, :, -1])))
    made, query = (F.linear(rows, head.mapping.weight[..., 0], head.mapping.bias) for rows in (rows_BMUTD, rows_BMTD))
    found = head.relate(support, batch.query, there)
    torch.testing.assert_close(found.support, made @ made.transpose(-1, -2))
    torch.testing.assert_close(found.query, query @ query.transpose(-1, -2))
    torch.testing.assert_close(found.cross, query.unsqueeze(2) @ made.transpose(-1, -2))
    cosines = F.cosine_similarity(query[:, :, None, :, None], made[:, :, :, None], dim=-1)
    torch.testing.assert_close(found.costs, 1 - cosines)


@torch.no_grad()
@pytest.mark.parametrize("size", [1, 2, 3])
def test_distances_from_places_are_those_of_tuples_that_are_made(size):
    torch.manual_seed(0)
    one = TemporalCrossTransformer(6, 5, size, width=4).double().eval()
    for parameter in (one.norm_k.weight, one.norm_k.bias):
        torch.nn.init.normal_(parameter)
    query, support = torch.randn(2, 3, 5, 6).double(), torch.randn(2, 2, 2, 5, 6).double()  # B, M; B, K, S; T, D
    there = torch.tensor([[[True, True], [True, False]]] * 2)

    def made(clips):
        tuples = torch.stack([one.pe(clips.flatten(0, -3))[:, list(places)].flatten(1)
                              for places in combinations(range(5), size)], dim=1).unflatten(0, clips.shape[:-2])
        return one.norm_k(one.k_linear(tuples)), one.v_linear(tuples)

    (query_keys, query_values), (keys, values) = made(query), made(support)
    scores = torch.einsum("bmne,bksue->bmknsu", query_keys, keys) / 2  # sqrt(width)
    weights = scores.masked_fill(~there[:, None, :, None, :, None], -torch.inf).flatten(-2).softmax(dim=-1)
    prototypes = torch.einsum("bmkni,bkie->bmkne", weights, values.flatten(2, 3))
    expected = (query_values.unsqueeze(2) - prototypes).square().sum(dim=-1).mean(dim=-1)
    kept = [[value.unflatten(0, clips.shape[:-2]) for value in one.clip_features(clips.flatten(0, -3))]
            for clips in (query, support)]
    torch.testing.assert_close(one.distances(*kept, there), expected)
