// Codes of 1 to 8 bits, 16 of them in 2 bits x bytes: 8 bits as bytes, else cut into pieces of 4, 2 and 1 bits, lowest
// first. Of 4 bits, byte i holds codes i and i + 8; of 2 and 1 bits, code i stands at bit 2 i, or i, of a small word.
#pragma once
#include <cstdint>
#include <cstring>

#include "half.hpp"
#include "simd.hpp"

namespace workbench::codes {
namespace {  // one copy per source file and instruction set

constexpr int unit = 16;                         // codes packed together
constexpr int vectors = unit / simd::W;          // of floats that they unpack to
constexpr int unit_bytes(int bits) { return 2 * bits; }

inline void pack16(const std::uint8_t *codes, int bits, std::uint8_t *to) {
    if (bits == 8) {
        std::memcpy(to, codes, unit);
        return;
    }
    int shift = 0;
    if (bits & 4) {
        for (int i = 0; i < 8; ++i) to[i] = static_cast<std::uint8_t>((codes[i] & 15) | (codes[i + 8] & 15) << 4);
        to += 8, shift = 4;
    }
    if (bits & 2) {
        std::uint32_t word = 0;
        for (int i = 0; i < unit; ++i) word |= (static_cast<std::uint32_t>(codes[i]) >> shift & 3u) << 2 * i;
        std::memcpy(to, &word, sizeof word);
        to += 4, shift += 2;
    }
    if (bits & 1) {
        std::uint16_t word = 0;
        for (int i = 0; i < unit; ++i) word = static_cast<std::uint16_t>(word | (codes[i] >> shift & 1) << i);
        std::memcpy(to, &word, sizeof word);
    }
}

inline void unpack16(const std::uint8_t *from, int bits, std::uint8_t *codes) {
    if (bits == 8) {
        std::memcpy(codes, from, unit);
        return;
    }
    std::memset(codes, 0, unit);
    int shift = 0;
    if (bits & 4) {
        for (int i = 0; i < 8; ++i) codes[i] = from[i] & 15, codes[i + 8] = from[i] >> 4;
        from += 8, shift = 4;
    }
    if (bits & 2) {
        std::uint32_t word;
        std::memcpy(&word, from, sizeof word);
        for (int i = 0; i < unit; ++i) codes[i] = static_cast<std::uint8_t>(codes[i] | (word >> 2 * i & 3u) << shift);
        from += 4, shift += 2;
    }
    if (bits & 1) {
        std::uint16_t word;
        std::memcpy(&word, from, sizeof word);
        for (int i = 0; i < unit; ++i) codes[i] = static_cast<std::uint8_t>(codes[i] | (word >> i & 1) << shift);
    }
}

template <class T>
inline T word_at(const std::uint8_t *from) {
    T word;
    std::memcpy(&word, from, sizeof word);
    return word;
}

// 16 codes as floats. `known` is the number of bits where the loop was compiled for it, or 0 where `bits` says.
template <int known>
inline void levels(const std::uint8_t *from, int bits, simd::vf (&out)[vectors]) {
    if constexpr (known != 0) bits = known;
#if defined(__AVX512F__)
    if constexpr (known == 2) {  // the permutation reads four bits of each lane, and its table repeats: no mask is needed
        const __m512i word = _mm512_srlv_epi32(_mm512_set1_epi32(word_at<std::int32_t>(from)),
                                               _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30));
        out[0] = _mm512_permutexvar_ps(word, _mm512_setr_ps(0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3));
        return;
    }
    const __m512i nibble = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 4, 4, 4, 4, 4, 4, 4, 4);
    if constexpr (known == 4) {
        const __m512i word = _mm512_srlv_epi32(_mm512_cvtepu8_epi32(_mm_set1_epi64x(word_at<std::int64_t>(from))), nibble);
        out[0] = _mm512_permutexvar_ps(word, _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
        return;
    }
    if (bits == 8) {
        out[0] = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i *>(from))));
        return;
    }
    const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    __m512i code = _mm512_setzero_si512();
    int shift = 0;
    if (bits & 4) {
        const __m512i word = _mm512_srlv_epi32(_mm512_cvtepu8_epi32(_mm_set1_epi64x(word_at<std::int64_t>(from))), nibble);
        code = _mm512_and_si512(word, _mm512_set1_epi32(15));
        from += 8, shift = 4;
    }
    if (bits & 2) {
        const __m512i word = _mm512_srlv_epi32(_mm512_set1_epi32(word_at<std::int32_t>(from)), _mm512_slli_epi32(lane, 1));
        code = _mm512_or_si512(code, _mm512_slli_epi32(_mm512_and_si512(word, _mm512_set1_epi32(3)), static_cast<unsigned>(shift)));
        from += 4, shift += 2;
    }
    if (bits & 1) {
        const __m512i word = _mm512_srlv_epi32(_mm512_set1_epi32(word_at<std::uint16_t>(from)), lane);
        code = _mm512_or_si512(code, _mm512_slli_epi32(_mm512_and_si512(word, _mm512_set1_epi32(1)), static_cast<unsigned>(shift)));
    }
    out[0] = _mm512_cvtepi32_ps(code);
#elif defined(__AVX2__)
    if constexpr (known == 2) {
        const __m256i word = _mm256_set1_epi32(word_at<std::int32_t>(from));
        const __m256 table = _mm256_setr_ps(0, 1, 2, 3, 0, 1, 2, 3);
        out[0] = _mm256_permutevar8x32_ps(table, _mm256_srlv_epi32(word, _mm256_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14)));
        out[1] = _mm256_permutevar8x32_ps(table, _mm256_srlv_epi32(word, _mm256_setr_epi32(16, 18, 20, 22, 24, 26, 28, 30)));
        return;
    }
    if constexpr (known == 4) {
        const __m256i word = _mm256_cvtepu8_epi32(_mm_set1_epi64x(word_at<std::int64_t>(from)));
        out[0] = _mm256_cvtepi32_ps(_mm256_and_si256(word, _mm256_set1_epi32(15)));
        out[1] = _mm256_cvtepi32_ps(_mm256_srli_epi32(word, 4));
        return;
    }
    std::uint8_t codes[unit];
    unpack16(from, bits, codes);
    for (int i = 0; i < 2; ++i) out[i] = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_set1_epi64x(word_at<std::int64_t>(codes + 8 * i))));
#else
    std::uint8_t codes[unit];
    float values[unit];
    unpack16(from, bits, codes);
    for (int i = 0; i < unit; ++i) values[i] = static_cast<float>(codes[i]);
    for (int i = 0; i < vectors; ++i) out[i] = simd::load(values + i * simd::W);
#endif
}

// W numbers in half precision.
inline simd::vf load_half(const std::uint16_t *from) {
#if defined(__AVX512F__)
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(from)));
#elif defined(__AVX2__)
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i *>(from)));
#else
    float values[simd::W];
    for (int i = 0; i < simd::W; ++i) values[i] = float_from_half(from[i]);
    return simd::load(values);
#endif
}

inline float one_half(std::uint16_t bits) {
#if defined(__AVX2__)
    return _cvtsh_ss(bits);
#else
    return float_from_half(bits);
#endif
}

inline void widen_half(const std::uint16_t *from, std::int64_t count, float *to) {
    std::int64_t i = 0;
    for (; i + simd::W <= count; i += simd::W) simd::store(to + i, load_half(from + i));
    for (; i < count; ++i) to[i] = one_half(from[i]);
}

}  // namespace
}  // namespace workbench::codes
