// One tile of C = W X in registers, W int8 in groups of four columns, X uint8: at most four rows, as many columns as a
// row of the packed panel has. Sums are int32, modulo 2^32, never saturating.
#pragma once
#include <cstdint>
#include <cstring>

#include "simd.hpp"

namespace workbench::int8 {
namespace {  // one copy per source file and instruction set

using namespace workbench::simd;

inline std::int32_t four_bytes(const void *p) {
    std::int32_t x;
    std::memcpy(&x, p, sizeof x);
    return x;
}

#if defined(__AVX512VNNI__)
using vi = __m512i;
using Cell = std::uint8_t;   // of a packed panel
using Factor = std::int8_t;  // a weight as the tile reads it
constexpr int vectors = 4;
inline vi spread(std::int32_t a) { return _mm512_set1_epi32(a); }
inline void store(std::int32_t *p, vi a) { _mm512_storeu_si512(p, a); }
inline vf to_float(const std::int32_t *p) { return _mm512_cvtepi32_ps(_mm512_loadu_si512(p)); }
inline void store_bytes(void *p, vf steps, int zero) {
    const vi whole = _mm512_add_epi32(_mm512_cvtps_epi32(steps), spread(zero));
    _mm_storeu_si128(static_cast<__m128i *>(p), _mm512_cvtepi32_epi8(whole));
}

// One row of X into the panel, columns in the order that interleaving undoes: it takes 4 bytes of each 16.
inline void pack_row(const std::uint8_t *from, Cell *to) {
    const vi order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    _mm512_store_si512(to, _mm512_permutexvar_epi32(order, _mm512_loadu_si512(from)));
}

// Adds the products of some groups: four rows of the panel interleaved byte by byte, then dot products of four bytes.
template <int rows, class I>
inline void add_groups(const I *columns, const Factor *weights, std::int64_t groups, std::int64_t step,
                       const Cell *panel, vi (&acc)[rows][vectors]) {
    for (std::int64_t g = 0; g < groups; ++g, columns += 4, weights += step) {
        const vi x0 = _mm512_load_si512(panel + std::int64_t{columns[0]} * 64), x1 = _mm512_load_si512(panel + std::int64_t{columns[1]} * 64);
        const vi x2 = _mm512_load_si512(panel + std::int64_t{columns[2]} * 64), x3 = _mm512_load_si512(panel + std::int64_t{columns[3]} * 64);
        const vi low01 = _mm512_unpacklo_epi8(x0, x1), low23 = _mm512_unpacklo_epi8(x2, x3);
        const vi high01 = _mm512_unpackhi_epi8(x0, x1), high23 = _mm512_unpackhi_epi8(x2, x3);
        const vi x[vectors] = {_mm512_unpacklo_epi16(low01, low23), _mm512_unpackhi_epi16(low01, low23),
                               _mm512_unpacklo_epi16(high01, high23), _mm512_unpackhi_epi16(high01, high23)};
#pragma GCC unroll 4
        for (int r = 0; r < rows; ++r) {
            const vi w = spread(four_bytes(weights + 4 * r));
#pragma GCC unroll 4
            for (int j = 0; j < vectors; ++j) acc[r][j] = _mm512_dpbusd_epi32(acc[r][j], x[j], w);
        }
    }
}
#else
// Bytes of X are widened when a panel is packed, those of W once a call: sums of two 16-bit products cannot overflow.
using Cell = std::uint16_t;
using Factor = std::int16_t;
constexpr int vectors = 2;
#if defined(__AVX2__)
using vi = __m256i;
inline vi spread(std::int32_t a) { return _mm256_set1_epi32(a); }
inline vi load_cells(const Cell *p) { return _mm256_load_si256(reinterpret_cast<const vi *>(p)); }
inline vi lower(vi a, vi b) { return _mm256_unpacklo_epi16(a, b); }
inline vi upper(vi a, vi b) { return _mm256_unpackhi_epi16(a, b); }
inline vi add_pairs(vi sum, vi a, vi b) { return _mm256_add_epi32(sum, _mm256_madd_epi16(a, b)); }
inline void store(std::int32_t *p, vi a) { _mm256_storeu_si256(reinterpret_cast<vi *>(p), a); }
inline vf to_float(const std::int32_t *p) { return _mm256_cvtepi32_ps(_mm256_loadu_si256(reinterpret_cast<const vi *>(p))); }
inline void pack_row(const std::uint8_t *from, Cell *to) {
    const vi wide = _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i *>(from)));
    _mm256_store_si256(reinterpret_cast<vi *>(to), _mm256_permute4x64_epi64(wide, 0xd8));  // what interleaving undoes
}
#else
typedef std::int32_t vi __attribute__((vector_size(16)));
typedef std::uint32_t vu __attribute__((vector_size(16)));
typedef std::int16_t vs __attribute__((vector_size(16)));
inline vi spread(std::int32_t a) { return vi{a, a, a, a}; }
inline vi load_cells(const Cell *p) {
    vi a;
    std::memcpy(&a, p, sizeof a);
    return a;
}
inline vi lower(vi a, vi b) { return (vi)__builtin_shuffle((vs)a, (vs)b, vs{0, 8, 1, 9, 2, 10, 3, 11}); }
inline vi upper(vi a, vi b) { return (vi)__builtin_shuffle((vs)a, (vs)b, vs{4, 12, 5, 13, 6, 14, 7, 15}); }
inline vi add_pairs(vi sum, vi a, vi b) {
#if defined(__SSE2__)
    const vi pairs = (vi)__builtin_ia32_pmaddwd128((vs)a, (vs)b);
#else
    const vi pairs = ((a << 16) >> 16) * ((b << 16) >> 16) + (a >> 16) * (b >> 16);
#endif
    return (vi)((vu)sum + (vu)pairs);  // unsigned: it may wrap
}
inline void store(std::int32_t *p, vi a) { std::memcpy(p, &a, sizeof a); }
inline vf to_float(const std::int32_t *p) {
    vi a;
    std::memcpy(&a, p, sizeof a);
    return __builtin_convertvector(a, vf);
}
inline void pack_row(const std::uint8_t *from, Cell *to) {
    for (int c = 0; c < 8; ++c) to[c] = from[c];
}
#endif

inline void store_bytes(void *p, vf steps, int zero) {
    float each[W];
    simd::store(each, round(steps));
    for (int i = 0; i < W; ++i) static_cast<std::uint8_t *>(p)[i] = static_cast<std::uint8_t>(static_cast<int>(each[i]) + zero);
}

// The same by pairs: two rows of the panel interleaved, then sums of two products.
template <int rows, class I>
inline void add_groups(const I *columns, const Factor *weights, std::int64_t groups, std::int64_t step,
                       const Cell *panel, vi (&acc)[rows][vectors]) {
    constexpr int width = vectors * W;
    for (std::int64_t g = 0; g < groups; ++g, columns += 4, weights += step) {
#pragma GCC unroll 2
        for (int pair = 0; pair < 4; pair += 2) {
            const vi a = load_cells(panel + std::int64_t{columns[pair]} * width), b = load_cells(panel + std::int64_t{columns[pair + 1]} * width);
            const vi x[vectors] = {lower(a, b), upper(a, b)};
#pragma GCC unroll 4
            for (int r = 0; r < rows; ++r) {
                const vi w = spread(four_bytes(weights + 4 * r + pair));
#pragma GCC unroll 2
                for (int j = 0; j < vectors; ++j) acc[r][j] = add_pairs(acc[r][j], x[j], w);
            }
        }
    }
}
#endif

constexpr int width = vectors * W;  // columns of a tile, cells of a panel's row

// sums[rows, width] = bias + the products of some groups.
template <int rows, class I>
inline void tile(const std::int32_t *bias, const I *columns, const Factor *weights, std::int64_t groups,
                 std::int64_t step, const Cell *panel, std::int32_t *sums, std::int64_t stride) {
    vi acc[rows][vectors];
#pragma GCC unroll 4
    for (int r = 0; r < rows; ++r)
#pragma GCC unroll 4
        for (int j = 0; j < vectors; ++j) acc[r][j] = spread(bias ? bias[r] : 0);
    add_groups<rows>(columns, weights, groups, step, panel, acc);
#pragma GCC unroll 4
    for (int r = 0; r < rows; ++r)
#pragma GCC unroll 4
        for (int j = 0; j < vectors; ++j) store(sums + r * stride + j * W, acc[r][j]);
}

}  // namespace
}  // namespace workbench::int8
