// From masks to lists of positions, without a branch on how many bits are set as long as they are few.
#pragma once
#include <array>
#include <bit>
#include <cstdint>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace workbench {

#if defined(__AVX512VBMI2__)
inline __m512i numbers_0_to_63() {
    alignas(64) static constexpr auto numbers = [] {
        std::array<std::uint8_t, 64> list{};
        for (int s = 0; s < 64; ++s) list[s] = static_cast<std::uint8_t>(s);
        return list;
    }();
    return _mm512_load_si512(numbers.data());
}

inline void widen_and_store(__m128i places, std::int32_t first, std::int32_t *out) {
    _mm512_storeu_si512(out, _mm512_add_epi32(_mm512_cvtepu8_epi32(places), _mm512_set1_epi32(first)));
}

inline void widen_and_store(__m128i places, std::int64_t first, std::int64_t *out) {
    const __m512i base = _mm512_set1_epi64(first);
    _mm512_storeu_si512(out, _mm512_add_epi64(_mm512_cvtepu8_epi64(places), base));
    _mm512_storeu_si512(out + 8, _mm512_add_epi64(_mm512_cvtepu8_epi64(_mm_srli_si128(places, 8)), base));
}
#endif

// Write first + position of every set bit, rising. Up to 64 entries of out may be overwritten. -> how many bits are set
template <class I>
inline int store_positions(std::uint64_t mask, I first, I *out) {
    const int total = std::popcount(mask);
#if defined(__AVX512VBMI2__)
    const __m512i places = _mm512_maskz_compress_epi8(mask, numbers_0_to_63());
    widen_and_store(_mm512_castsi512_si128(places), first, out);
    if (total > 16) {
        widen_and_store(_mm512_extracti32x4_epi32(places, 1), first, out + 16);
        widen_and_store(_mm512_extracti32x4_epi32(places, 2), first, out + 32);
        widen_and_store(_mm512_extracti32x4_epi32(places, 3), first, out + 48);
    }
#else
    for (int done = 0; done == 0 || done < total; done += 4)
        for (int s = done; s < done + 4; ++s) {
            out[s] = static_cast<I>(first + (std::countr_zero(mask) & 63));
            mask &= mask - 1;
        }
#endif
    return total;
}

}  // namespace workbench
