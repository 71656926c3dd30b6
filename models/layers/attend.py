"""This file has the step that all multi-head attentions share, between their projections.

B sequences, M tokens that ask, L tokens that are asked, D features.
"""

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor


def attend(q_BMD: Tensor, k_BLD: Tensor, v_BLD: Tensor, heads: int) -> Tensor:
    """Return what each asking token takes of the values, head by head, side by side again. [B, M, D]"""
    q, k, v = (rearrange(one, "b l (h d) -> b h l d", h=heads) for one in (q_BMD, k_BLD, v_BLD))
    return rearrange(F.scaled_dot_product_attention(q, k, v), "b h l d -> b l (h d)")
