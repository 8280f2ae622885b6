// Elementwise functions on vectors of floats, accurate to a few units in the last place. NaN stays NaN.
#pragma once
#include "simd.hpp"

namespace workbench::simd {
namespace {  // one copy per source file and instruction set

inline vf smaller(vf a, vf b) { return a < b ? a : b; }  // second operand where either is NaN
inline vf magnitude(vf a) { return max(sub(set1(0.0f), a), a); }

// e^x as the square of 2^(x log2(e) / 2), so that no power of two on the way is out of range.
inline vf exp(vf x) {
    const vf root = exp2(smaller(set1(65.0f), mul(x, set1(0.72134752f))));
    return mul(root, root);
}

// e^x - 1 for x <= 0, accurate near 0 too: 2^n (2^f - 1) + (2^n - 1), the first by its Taylor series.
inline vf expm1_below_zero(vf x) {
    const vf y = max(set1(-125.0f), mul(x, set1(1.44269504f)));
    const vf n = round(y), f = sub(y, n), whole = scale2(set1(1.0f), n);
    vf p = set1(1.5403530e-4f);
    p = fma(p, f, set1(1.3333558e-3f));
    p = fma(p, f, set1(9.6181291e-3f));
    p = fma(p, f, set1(5.5504109e-2f));
    p = fma(p, f, set1(2.4022651e-1f));
    p = fma(p, f, set1(6.9314718e-1f));
    return fma(whole, mul(p, f), sub(whole, set1(1.0f)));
}

inline vf tanh(vf x) {
    const vf m = expm1_below_zero(mul(set1(-2.0f), magnitude(x)));
    const vf size = sub(set1(0.0f), m) / add(m, set1(2.0f));
    return x < set1(0.0f) ? sub(set1(0.0f), size) : size;
}

// x Phi(x), Phi the normal distribution. Its lower tail is exp(-x^2/2) t p(t) with t = 1 / (1 + 0.4 |x| / sqrt(2)); p is
// our fit of erfcx(|x| / sqrt(2)) / (2 t), its relative error below 7e-8. The tail itself, and not 1 - Phi, is what x < 0
// needs, so that nothing cancels.
inline vf gelu(vf x) {
    const vf near = max(set1(-20.0f), x);  // gelu(-20) is 0 in float32, and so is all below
    const vf t = set1(1.0f) / fma(magnitude(near), set1(0.28284271f), set1(1.0f));
    constexpr float fit[] = {0.112820316f, 0.113167143f, 0.101330624f,  0.0951913705f, 0.0433938401f,
                             0.0389208856f, 0.0463928711f, -0.0722764238f, 0.0210594049f};
    vf p = set1(fit[8]);
#pragma GCC unroll 8
    for (int i = 7; i >= 0; --i) p = fma(p, t, set1(fit[i]));
    const vf tail = mul(mul(exp2(mul(mul(near, near), set1(-0.72134752f))), t), p);
    return mul(near, near < set1(0.0f) ? tail : sub(set1(1.0f), tail));
}

}  // namespace
}  // namespace workbench::simd
