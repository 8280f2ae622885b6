// Dense accumulator over a window of columns that finds its entries again in rising order without sorting.
//
// One byte per column marks it as reached: a plain store, where a bitmap would need a read-modify-write whose latency
// chains when neighbouring columns follow each other. The scan turns 64 bytes into one mask word. All is zero between rows.
#pragma once
#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <vector>

#include "bit_positions.hpp"

namespace workbench {

inline std::uint64_t mask_of_64_bytes(const std::uint8_t *flags) {
#if defined(__AVX512BW__)
    const __m512i bytes = _mm512_loadu_si512(flags);
    return _mm512_test_epi8_mask(bytes, bytes);
#elif defined(__x86_64__)
    std::uint64_t mask = 0;
    for (int part = 0; part < 4; ++part) {  // flags are 0 or 0xff, so the sign bit tells
        const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i *>(flags + 16 * part));
        mask |= static_cast<std::uint64_t>(static_cast<std::uint32_t>(_mm_movemask_epi8(bytes))) << (16 * part);
    }
    return mask;
#else
    std::uint64_t mask = 0;
    for (int s = 0; s < 64; ++s) mask |= static_cast<std::uint64_t>(flags[s] != 0) << s;
    return mask;
#endif
}

#if defined(__AVX512F__)
// Store those of 16 sums that mask names, side by side; 16 entries of the output may be overwritten.
inline void compress_values(__mmask16 mask, const float *sums, float *data) {
    _mm512_storeu_ps(data, _mm512_maskz_compress_ps(mask, _mm512_loadu_ps(sums)));
}

inline void compress_values(__mmask16 mask, const double *sums, double *data) {
    const __mmask8 low = static_cast<__mmask8>(mask), high = static_cast<__mmask8>(mask >> 8);
    _mm512_storeu_pd(data, _mm512_maskz_compress_pd(low, _mm512_loadu_pd(sums)));
    _mm512_storeu_pd(data + std::popcount(mask & 0xffu), _mm512_maskz_compress_pd(high, _mm512_loadu_pd(sums + 8)));
}
#endif

template <class I, class T>
class WindowAccumulator {
  public:
    // Make room for `groups` groups of 64 columns.
    void grow(std::int64_t groups) {
        const std::size_t columns = 64 * static_cast<std::size_t>(groups);
        if (sums_.size() >= columns && reached_.size() >= columns) return;
        sums_.resize(std::max(sums_.size(), columns));
        reached_.resize(sums_.size());
    }

    // sum[columns[s] - base] += scale * values[s]
    void add(std::int64_t base, T scale, const I *columns, const T *values, std::int64_t count) {
        T *const sums = sums_.data();
        std::uint8_t *const reached = reached_.data();
        for (std::int64_t s = 0; s < count; ++s) {
            const std::int64_t j = columns[s] - base;
            sums[j] += scale * values[s];
            reached[j] = 0xff;
        }
    }

    // Move the entries of columns [base, base + 64 * groups) out, in rising order, and leave zeros. -> how many
    // full: groups are well filled on average, so move their values as vectors.
    template <bool full>
    std::int64_t take(std::int64_t base, std::int64_t groups, I *indices, T *data) {
        std::int64_t count = 0;
        for (std::int64_t group = 0; group < groups; ++group) {
            std::uint8_t *const reached = reached_.data() + 64 * group;
            const std::uint64_t mask = mask_of_64_bytes(reached);
            if (full && mask == 0) continue;
            std::memset(reached, 0, 64);
            const int total = store_positions(mask, static_cast<I>(base + 64 * group), indices + count);
            if constexpr (full) take_values(mask, base, group, indices + count, total, data + count);
            count += total;
        }
        if constexpr (!full) {
            T *const sums = sums_.data();
            for (std::int64_t s = 0; s < count; ++s) {
                const std::int64_t j = indices[s] - base;
                data[s] = sums[j];
                sums[j] = T(0);
            }
        }
        return count;
    }

  private:
    void take_values([[maybe_unused]] std::uint64_t mask, [[maybe_unused]] std::int64_t base, std::int64_t group,
                     [[maybe_unused]] const I *indices, [[maybe_unused]] int total, T *data) {
        T *const sums = sums_.data() + 64 * group;
#if defined(__AVX512F__)
        for (int part = 0; part < 64; part += 16) {
            const __mmask16 bits = static_cast<__mmask16>(mask >> part);
            compress_values(bits, sums + part, data);
            data += std::popcount(static_cast<std::uint32_t>(bits));
        }
#else
        for (int s = 0; s < total; ++s) data[s] = sums[indices[s] - base - 64 * group];
#endif
        std::memset(sums, 0, 64 * sizeof(T));
    }

    std::vector<T> sums_;
    std::vector<std::uint8_t> reached_;
};

}  // namespace workbench
