"""The error function on NumPy arrays, to one unit in the last place of float64.

The rational approximations of fdlibm's s_erf.c (Sun Microsystems, 1993, freely usable): erf on |x| < 0.84375 and
around 1, erfc = exp(-x^2 - 0.5625 + R/S) / |x| beyond. x^2 is taken as z^2 + (x - z)(x + z) with z the leading half of
x's bits, so that rounding it does not enlarge the error of the exponential.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_AT_ONE = 8.45062911510467529297e-01
_SMALL = (
    (
        1.28379167095512558561e-01,
        -3.25042107247001499370e-01,
        -2.84817495755985104766e-02,
        -5.77027029648944159157e-03,
        -2.37630166566501626084e-05,
    ),
    (
        1.0,
        3.97917223959155352819e-01,
        6.50222499887672944485e-02,
        5.08130628187576562776e-03,
        1.32494738004321644526e-04,
        -3.96022827877536812320e-06,
    ),
)
_NEAR_ONE = (
    (
        -2.36211856075265944077e-03,
        4.14856118683748331666e-01,
        -3.72207876035701323847e-01,
        3.18346619901161753674e-01,
        -1.10894694282396677476e-01,
        3.54783043256182359371e-02,
        -2.16637559486879084300e-03,
    ),
    (
        1.0,
        1.06420880400844228286e-01,
        5.40397917702171048937e-01,
        7.18286544141962662868e-02,
        1.26171219808761642112e-01,
        1.36370839120290507362e-02,
        1.19844998467991074170e-02,
    ),
)
_TAIL = (
    (
        -9.86494403484714822705e-03,
        -6.93858572707181764372e-01,
        -1.05586262253232909814e01,
        -6.23753324503260060396e01,
        -1.62396669462573470355e02,
        -1.84605092906711035994e02,
        -8.12874355063065934246e01,
        -9.81432934416914548592e00,
    ),
    (
        1.0,
        1.96512716674392571292e01,
        1.37657754143519042600e02,
        4.34565877475229228821e02,
        6.45387271733267880336e02,
        4.29008140027567833386e02,
        1.08635005541779435134e02,
        6.57024977031928170135e00,
        -6.04244152148580987438e-02,
    ),
)
_FAR_TAIL = (
    (
        -9.86494292470009928597e-03,
        -7.99283237680523006574e-01,
        -1.77579549177547519889e01,
        -1.60636384855821916062e02,
        -6.37566443368389627722e02,
        -1.02509513161107724954e03,
        -4.83519191608651397019e02,
    ),
    (
        1.0,
        3.03380607434824582924e01,
        3.25792512996573918826e02,
        1.53672958608443695994e03,
        3.19985821950859553908e03,
        2.55305040643316442583e03,
        4.74528541206955367215e02,
        -2.24409524465858183362e01,
    ),
)


def erf(x: Array) -> Array:
    """Return erf of every element, in the shape and dtype of `x`. float32 is computed in float64 and rounded once; NaN stays NaN."""
    wide = np.asarray(x, dtype=np.float64)
    size = np.abs(wide)
    out = np.where(np.isnan(wide), np.nan, 1.0)
    for part, fn in (
        (size < 0.84375, _small),
        ((size >= 0.84375) & (size < 1.25), _near_one),
        ((size >= 1.25) & (size < 1 / 0.35), _tail),
        ((size >= 1 / 0.35) & (size < 6), _far_tail),
    ):
        if part.any():
            out[part] = fn(size[part])
    return np.copysign(out, wide).astype(x.dtype, copy=False)


def _ratio(polynomials: tuple[tuple[float, ...], tuple[float, ...]], x: Array) -> Array:
    above, below = (_polynomial(coefficients, x) for coefficients in polynomials)
    return np.asarray(above / below)


def _polynomial(coefficients: tuple[float, ...], x: Array) -> Array:
    """Return the value of a polynomial by Horner's scheme; the first coefficient is the constant."""
    out = np.full_like(x, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        out = out * x + coefficient
    return out


def _small(x: Array) -> Array:
    return np.asarray(x + x * _ratio(_SMALL, x * x))


def _near_one(x: Array) -> Array:
    return np.asarray(_AT_ONE + _ratio(_NEAR_ONE, x - 1))


def _complement(x: Array, polynomials: tuple[tuple[float, ...], tuple[float, ...]]) -> Array:
    leading = (x.view(np.int64) & -0x100000000).view(np.float64)
    exponent = np.exp(-leading * leading - 0.5625) * np.exp(
        (leading - x) * (leading + x) + _ratio(polynomials, 1 / (x * x))
    )
    return np.asarray(1 - exponent / x)


def _tail(x: Array) -> Array:
    return _complement(x, _TAIL)


def _far_tail(x: Array) -> Array:
    return _complement(x, _FAR_TAIL)
