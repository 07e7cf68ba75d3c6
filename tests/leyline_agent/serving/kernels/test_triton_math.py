"""The interpreter's traps, stepped around: casts round to nearest even, products are products."""

import pytest
import torch

triton = pytest.importorskip("triton", reason="Triton runs on Linux only")
tl = pytest.importorskip("triton.language")

from leyline_agent.serving.kernels.triton_math import cast, dot, rotate  # noqa: E402

DTYPES = [torch.float32, torch.float16, torch.bfloat16]


@triton.jit
def cast_kernel(x, out, n, SIZE: tl.constexpr):
    at = tl.arange(0, SIZE)
    tile = tl.load(x + at, mask=at < n)
    tl.store(out + at, cast(tile, out.dtype.element_ty), mask=at < n)


@triton.jit
def dot_kernel(a, b, c, out, SIZE: tl.constexpr, ADD: tl.constexpr):
    row, column = tl.arange(0, SIZE)[:, None], tl.arange(0, SIZE)[None, :]
    at = row * SIZE + column
    if ADD:
        tl.store(out + at, dot(tl.load(a + at), tl.load(b + at), tl.load(c + at)))
    else:
        tl.store(out + at, dot(tl.load(a + at), tl.load(b + at)))


@triton.jit
def rotate_kernel(x, out, SIZE: tl.constexpr):
    at = tl.arange(0, SIZE)
    left, right = rotate(
        tl.load(x), tl.load(x + 1), tl.load(x + 2 + at), tl.load(x + 2 + SIZE + at)
    )
    tl.store(out + at, left)
    tl.store(out + SIZE + at, right)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_cast_rounds_to_nearest_even(device, dtype):
    values = torch.randn(1000, generator=torch.Generator().manual_seed(0)) * 100
    ties = torch.tensor([1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8, 1 + 2**-11, 1 + 3 * 2**-11])
    special = torch.tensor([0.0, -0.0, torch.inf, -torch.inf, torch.nan, 3.4e38, 1e-40])
    x = torch.cat((values, ties, special)).to(device)
    out = torch.empty_like(x, dtype=dtype)
    cast_kernel[(1,)](x, out, len(x), 1024)
    torch.testing.assert_close(out, x.to(dtype), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("add", [False, True])
def test_a_product_of_tiles(device, dtype, add):
    rng = torch.Generator().manual_seed(1)
    a, b, c = torch.randn((3, 32, 32), generator=rng).to(device)
    a, b = a.to(dtype), b.to(dtype)
    out = torch.full_like(c, torch.nan)
    dot_kernel[(1,)](a, b, c, out, 32, add)
    expected = a.double() @ b.double() + (c.double() if add else 0)
    torch.testing.assert_close(out.double(), expected, rtol=0, atol=2e-5)


def test_a_pair_is_turned(device):
    angle = torch.linspace(-4, 4, 16, dtype=torch.float64)
    x = torch.cat((torch.tensor([0.6, -1.7]), angle.cos().float(), angle.sin().float())).to(device)
    out = torch.full((32,), torch.nan, device=device)
    rotate_kernel[(1,)](x, out, 16)
    turned = torch.complex(x[0].double(), x[1].double()).cpu() * torch.polar(
        torch.ones_like(angle), angle
    )
    torch.testing.assert_close(
        out.double().cpu(), torch.cat((turned.real, turned.imag)), rtol=0, atol=4e-7
    )
