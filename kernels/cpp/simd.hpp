// One vector of floats (vf, W lanes) or doubles (vd, W / 2 lanes) for the instruction set being compiled; loops are
// written once against it. first_lanes<S>(count) names the first lanes: a load of them clears the others, and neither a load
// nor a store touches the memory behind them.
#pragma once
#include <cmath>
#include <cstdint>
#include <limits>

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

namespace workbench::simd {
namespace {  // one copy per source file and instruction set

#if defined(__AVX512F__)
constexpr int W = 16;
constexpr int gemm_rows = 6, gemm_vectors = 4;
using vf = __m512;
inline vf load(const float *p) { return _mm512_loadu_ps(p); }
inline void store(float *p, vf a) { _mm512_storeu_ps(p, a); }
inline vf set1(float a) { return _mm512_set1_ps(a); }
inline vf add(vf a, vf b) { return _mm512_add_ps(a, b); }
inline vf sub(vf a, vf b) { return _mm512_sub_ps(a, b); }
inline vf mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
inline vf fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
inline vf max(vf a, vf b) { return _mm512_max_ps(a, b); }  // second operand where either is NaN
inline float sum(vf a) { return _mm512_reduce_add_ps(a); }
inline float largest(vf a) { return _mm512_reduce_max_ps(a); }
inline vf round(vf a) { return _mm512_roundscale_ps(a, 0); }
inline vf scale2(vf a, vf n) { return _mm512_scalef_ps(a, n); }
inline vf zero_below(vf a, vf x, vf limit) { return _mm512_mask_mov_ps(a, _mm512_cmp_ps_mask(x, limit, _CMP_LT_OQ), _mm512_setzero_ps()); }
using vd = __m512d;
inline vd load(const double *p) { return _mm512_loadu_pd(p); }
inline void store(double *p, vd a) { _mm512_storeu_pd(p, a); }
inline vd set1(double a) { return _mm512_set1_pd(a); }
inline vd add(vd a, vd b) { return _mm512_add_pd(a, b); }
inline vd sub(vd a, vd b) { return _mm512_sub_pd(a, b); }
inline vd mul(vd a, vd b) { return _mm512_mul_pd(a, b); }
inline vd fma(vd a, vd b, vd c) { return _mm512_fmadd_pd(a, b, c); }
inline vd max(vd a, vd b) { return _mm512_max_pd(a, b); }
inline double sum(vd a) { return _mm512_reduce_add_pd(a); }
inline double largest(vd a) { return _mm512_reduce_max_pd(a); }
inline vd round(vd a) { return _mm512_roundscale_pd(a, 0); }
inline vd scale2(vd a, vd n) { return _mm512_scalef_pd(a, n); }
inline vd zero_below(vd a, vd x, vd limit) { return _mm512_mask_mov_pd(a, _mm512_cmp_pd_mask(x, limit, _CMP_LT_OQ), _mm512_setzero_pd()); }
struct Lanes {
    __mmask16 lanes;
};
template <class S>
inline Lanes first_lanes(int count) { return {static_cast<__mmask16>((1u << count) - 1)}; }
inline vf load(const float *p, Lanes at) { return _mm512_maskz_loadu_ps(at.lanes, p); }
inline vd load(const double *p, Lanes at) { return _mm512_maskz_loadu_pd(static_cast<__mmask8>(at.lanes), p); }
inline void store(float *p, vf a, Lanes at) { _mm512_mask_storeu_ps(p, at.lanes, a); }
inline void store(double *p, vd a, Lanes at) { _mm512_mask_storeu_pd(p, static_cast<__mmask8>(at.lanes), a); }
#elif defined(__AVX2__)
constexpr int W = 8;
constexpr int gemm_rows = 6, gemm_vectors = 2;
using vf = __m256;
inline vf load(const float *p) { return _mm256_loadu_ps(p); }
inline void store(float *p, vf a) { _mm256_storeu_ps(p, a); }
inline vf set1(float a) { return _mm256_set1_ps(a); }
inline vf add(vf a, vf b) { return _mm256_add_ps(a, b); }
inline vf sub(vf a, vf b) { return _mm256_sub_ps(a, b); }
inline vf mul(vf a, vf b) { return _mm256_mul_ps(a, b); }
inline vf fma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
inline vf max(vf a, vf b) { return _mm256_max_ps(a, b); }
inline float sum(vf a) {
    float lane[W];
    store(lane, a);
    return ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}
inline float largest(vf a) {
    float lane[W];
    store(lane, a);
    float best = lane[0];
    for (int i = 1; i < W; ++i) best = lane[i] > best ? lane[i] : best;
    return best;
}
inline vf round(vf a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
inline vf scale2(vf a, vf n) {
    const __m256i power = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
    return _mm256_mul_ps(a, _mm256_castsi256_ps(power));
}
inline vf zero_below(vf a, vf x, vf limit) { return _mm256_andnot_ps(_mm256_cmp_ps(x, limit, _CMP_LT_OQ), a); }
using vd = __m256d;
inline vd load(const double *p) { return _mm256_loadu_pd(p); }
inline void store(double *p, vd a) { _mm256_storeu_pd(p, a); }
inline vd set1(double a) { return _mm256_set1_pd(a); }
inline vd add(vd a, vd b) { return _mm256_add_pd(a, b); }
inline vd sub(vd a, vd b) { return _mm256_sub_pd(a, b); }
inline vd mul(vd a, vd b) { return _mm256_mul_pd(a, b); }
inline vd fma(vd a, vd b, vd c) { return _mm256_fmadd_pd(a, b, c); }
inline vd max(vd a, vd b) { return _mm256_max_pd(a, b); }
inline double sum(vd a) {
    double lane[4];
    store(lane, a);
    return (lane[0] + lane[2]) + (lane[1] + lane[3]);
}
inline double largest(vd a) {
    double lane[4];
    store(lane, a);
    double best = lane[0];
    for (int i = 1; i < 4; ++i) best = lane[i] > best ? lane[i] : best;
    return best;
}
inline vd round(vd a) { return _mm256_round_pd(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
inline vd scale2(vd a, vd n) {  // n + 1023 stands in the low bits of the sum: the exponent of 2^n
    const __m256d shifted = _mm256_add_pd(n, _mm256_set1_pd(6755399441055744.0 + 1023.0));
    return _mm256_mul_pd(a, _mm256_castsi256_pd(_mm256_slli_epi64(_mm256_castpd_si256(shifted), 52)));
}
inline vd zero_below(vd a, vd x, vd limit) { return _mm256_andnot_pd(_mm256_cmp_pd(x, limit, _CMP_LT_OQ), a); }
struct Lanes {
    __m256i lanes;
};
template <class S>
inline Lanes first_lanes(int count) {
    const __m256i parts = _mm256_set1_epi32(count * static_cast<int>(sizeof(S)) / 4);
    return {_mm256_cmpgt_epi32(parts, _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7))};
}
inline vf load(const float *p, Lanes at) { return _mm256_maskload_ps(p, at.lanes); }
inline vd load(const double *p, Lanes at) { return _mm256_maskload_pd(p, at.lanes); }
inline void store(float *p, vf a, Lanes at) { _mm256_maskstore_ps(p, at.lanes, a); }
inline void store(double *p, vd a, Lanes at) { _mm256_maskstore_pd(p, at.lanes, a); }
#else
constexpr int W = 4;
constexpr int gemm_rows = 4, gemm_vectors = 2;
typedef float vf __attribute__((vector_size(16)));
typedef std::int32_t vi __attribute__((vector_size(16)));
inline vf load(const float *p) {
    vf a;
    __builtin_memcpy(&a, p, sizeof a);
    return a;
}
inline void store(float *p, vf a) { __builtin_memcpy(p, &a, sizeof a); }
inline vf set1(float a) { return vf{a, a, a, a}; }
inline vf add(vf a, vf b) { return a + b; }
inline vf sub(vf a, vf b) { return a - b; }
inline vf mul(vf a, vf b) { return a * b; }
inline vf fma(vf a, vf b, vf c) { return a * b + c; }
inline vf max(vf a, vf b) { return a > b ? a : b; }
inline float sum(vf a) { return (a[0] + a[2]) + (a[1] + a[3]); }
inline float largest(vf a) {
    float best = a[0];
    for (int i = 1; i < W; ++i) best = a[i] > best ? a[i] : best;
    return best;
}
inline vf round(vf a) {  // for |a| < 2^22, which exp2 guarantees
    const vf magic = set1(12582912.0f);
    return (a + magic) - magic;
}
inline vf scale2(vf a, vf n) {
    const vi power = (__builtin_convertvector(n, vi) + 127) << 23;
    vf factor;
    __builtin_memcpy(&factor, &power, sizeof factor);
    return a * factor;
}
inline vf zero_below(vf a, vf x, vf limit) { return x < limit ? set1(0.0f) : a; }
typedef double vd __attribute__((vector_size(16)));
typedef std::int64_t vl __attribute__((vector_size(16)));
inline vd load(const double *p) {
    vd a;
    __builtin_memcpy(&a, p, sizeof a);
    return a;
}
inline void store(double *p, vd a) { __builtin_memcpy(p, &a, sizeof a); }
inline vd set1(double a) { return vd{a, a}; }
inline vd add(vd a, vd b) { return a + b; }
inline vd sub(vd a, vd b) { return a - b; }
inline vd mul(vd a, vd b) { return a * b; }
inline vd fma(vd a, vd b, vd c) { return a * b + c; }
inline vd max(vd a, vd b) { return a > b ? a : b; }
inline double sum(vd a) { return a[0] + a[1]; }
inline double largest(vd a) { return a[1] > a[0] ? a[1] : a[0]; }
inline vd round(vd a) {  // for |a| < 2^51
    const vd magic = set1(6755399441055744.0);
    return (a + magic) - magic;
}
inline vd scale2(vd a, vd n) {
    const vl power = (__builtin_convertvector(n, vl) + 1023) << 52;
    vd factor;
    __builtin_memcpy(&factor, &power, sizeof factor);
    return a * factor;
}
inline vd zero_below(vd a, vd x, vd limit) { return x < limit ? set1(0.0) : a; }
struct Lanes {
    int lanes;
};
template <class S>
inline Lanes first_lanes(int count) { return {count}; }
inline vf load(const float *p, Lanes at) {
    vf a = {};
    for (int i = 0; i < at.lanes; ++i) a[i] = p[i];
    return a;
}
inline vd load(const double *p, Lanes at) {
    vd a = {};
    for (int i = 0; i < at.lanes; ++i) a[i] = p[i];
    return a;
}
inline void store(float *p, vf a, Lanes at) {
    for (int i = 0; i < at.lanes; ++i) p[i] = a[i];
}
inline void store(double *p, vd a, Lanes at) {
    for (int i = 0; i < at.lanes; ++i) p[i] = a[i];
}
#endif

template <class S>
constexpr int lanes = 4 * W / static_cast<int>(sizeof(S));

// 2^x to about 2 ulp for x <= 127; exactly 0 below 2^-126 (so that -inf gives 0), NaN stays NaN.
inline vf exp2(vf x) {
    const vf low = set1(-126.0f);
    const vf clamped = max(low, x);
    const vf n = round(clamped), f = sub(clamped, n);
    vf p = set1(1.5403530e-4f);  // Taylor coefficients of 2^f, ln(2)^i / i!, |f| <= 1/2
    p = fma(p, f, set1(1.3333558e-3f));
    p = fma(p, f, set1(9.6181291e-3f));
    p = fma(p, f, set1(5.5504109e-2f));
    p = fma(p, f, set1(2.4022651e-1f));
    p = fma(p, f, set1(6.9314718e-1f));
    p = fma(p, f, set1(1.0f));
    return zero_below(scale2(p, n), x, low);
}

// The same for doubles, for x <= 1023; the Taylor series goes on until its next term is below half an ulp.
inline vd exp2(vd x) {
    constexpr double taylor[] = {1.0, 0.6931471805599453, 0.24022650695910072, 0.05550410866482158, 0.009618129107628477,
                                 0.0013333558146428443, 0.0001540353039338161, 1.5252733804059841e-05,
                                 1.3215486790144307e-06, 1.0178086009239699e-07, 7.0549116208011234e-09,
                                 4.4455382718708114e-10, 2.5678435993488203e-11, 1.3691488853904128e-12};
    const vd low = set1(-1022.0);
    const vd clamped = max(low, x);
    const vd n = round(clamped), f = sub(clamped, n);
    vd p = set1(taylor[13]);
#pragma GCC unroll 16
    for (int i = 12; i >= 0; --i) p = fma(p, f, set1(taylor[i]));
    return zero_below(scale2(p, n), x, low);
}

// c[m, n] (+)= a b over k, for `rows` rows and `vectors` vectors of columns held in registers.
// a(i, p) = a[i * a_row + p * a_col]; b and c are row-major with strides ldb, ldc.
template <int rows, int vectors, class S>
inline void gemm_tile(int k, const S *a, std::int64_t a_row, std::int64_t a_col, const S *b, std::int64_t ldb, S *c,
                      std::int64_t ldc, bool accumulate) {
    constexpr int w = lanes<S>;
    decltype(load(c)) acc[rows][vectors];
#pragma GCC unroll 8
    for (int i = 0; i < rows; ++i)
#pragma GCC unroll 8
        for (int j = 0; j < vectors; ++j) acc[i][j] = accumulate ? load(c + i * ldc + j * w) : set1(S(0));
    for (int p = 0; p < k; ++p) {
        decltype(load(c)) line[vectors];
#pragma GCC unroll 8
        for (int j = 0; j < vectors; ++j) line[j] = load(b + p * ldb + j * w);
#pragma GCC unroll 8
        for (int i = 0; i < rows; ++i) {
            const auto x = set1(a[i * a_row + p * a_col]);
#pragma GCC unroll 8
            for (int j = 0; j < vectors; ++j) acc[i][j] = fma(x, line[j], acc[i][j]);
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < rows; ++i)
#pragma GCC unroll 8
        for (int j = 0; j < vectors; ++j) store(c + i * ldc + j * w, acc[i][j]);
}

template <int vectors, class S>
inline void gemm_panel(int m, int k, const S *a, std::int64_t a_row, std::int64_t a_col, const S *b, std::int64_t ldb,
                       S *c, std::int64_t ldc, bool accumulate) {
    int i = 0;
    for (; i + gemm_rows <= m; i += gemm_rows)
        gemm_tile<gemm_rows, vectors>(k, a + i * a_row, a_row, a_col, b, ldb, c + i * ldc, ldc, accumulate);
    if constexpr (gemm_rows > 4)
        for (; i + 4 <= m; i += 4)
            gemm_tile<4, vectors>(k, a + i * a_row, a_row, a_col, b, ldb, c + i * ldc, ldc, accumulate);
    for (; i + 2 <= m; i += 2)
        gemm_tile<2, vectors>(k, a + i * a_row, a_row, a_col, b, ldb, c + i * ldc, ldc, accumulate);
    if (i < m) gemm_tile<1, vectors>(k, a + i * a_row, a_row, a_col, b, ldb, c + i * ldc, ldc, accumulate);
}

// Matrix product of small blocks, n a multiple of 16.
template <class S>
inline void gemm(int m, int n, int k, const S *a, std::int64_t a_row, std::int64_t a_col, const S *b, std::int64_t ldb,
                 S *c, std::int64_t ldc, bool accumulate) {
    constexpr int w = lanes<S>;
    int j = 0;
    for (; j + gemm_vectors * w <= n; j += gemm_vectors * w)
        gemm_panel<gemm_vectors>(m, k, a, a_row, a_col, b + j, ldb, c + j, ldc, accumulate);
    if constexpr (gemm_vectors > 2)
        for (; j + 2 * w <= n; j += 2 * w) gemm_panel<2>(m, k, a, a_row, a_col, b + j, ldb, c + j, ldc, accumulate);
    for (; j + w <= n; j += w) gemm_panel<1>(m, k, a, a_row, a_col, b + j, ldb, c + j, ldc, accumulate);
}

}  // namespace
}  // namespace workbench::simd
