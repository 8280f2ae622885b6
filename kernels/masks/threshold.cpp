// The k-th largest score of each row and the mask of the k largest, by counting how many scores lie above a few values.
// Scores come as the unsigned integers of the same bits, so that one template serves float16, float32 and float64.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstdint>
#include <memory>
#include <vector>

#include "python_call.hpp"
#include "registry.hpp"
#include "thread_pool.hpp"

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace nb = nanobind;

namespace workbench {
namespace {

template <class K>
using Scores = nb::ndarray<const K, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
template <class K>
using KthOut = nb::ndarray<K, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using MaskOut = nb::ndarray<std::uint8_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

constexpr std::int64_t tiny_row = 32, few_keys = 8192, long_row = 1 << 17, most_samples = 1 << 14;
constexpr std::int64_t entries_per_task = 1 << 16, most_tasks = 256, entries_at_once = 1024;

template <class K>
constexpr K sign = K(K(1) << (8 * sizeof(K) - 1));
template <class K>
constexpr K infinity = K(sizeof(K) == 2 ? 0x7c00u : sizeof(K) == 4 ? 0x7f800000u : 0x7ff0000000000000u);

// Keys have the order of the floats whose bits are given; both zeros have one key. No number has key 0 or the largest.
template <class K>
K key_of(K bits) {
    return bits > sign<K> ? K(~bits) : K(bits | sign<K>);
}
template <class K>
K bits_of(K key) {
    return key & sign<K> ? K(key ^ sign<K>) : K(~key);
}

// Writes the keys of n scores; says whether one is NaN.
template <class K>
bool make_keys(const K *bits, std::int64_t n, K *keys) {
    K nan = 0;
    for (std::int64_t i = 0; i < n; ++i) {
        nan |= K((bits[i] & K(~sign<K>)) > infinity<K>);
        keys[i] = key_of(bits[i]);
    }
    return nan != 0;
}

// The k-th largest key; `equal` keys have its value, and `ties` of them are among the k largest (1 of 1: all of them).
template <class K>
struct Kth {
    K key;
    std::int64_t ties, equal;
};

template <class K>
std::int64_t count_at_least(const K *keys, std::int64_t n, K limit) {
    std::int64_t total = 0;
#if defined(__AVX512F__)
    if constexpr (sizeof(K) == 4)
        for (const __m512i to = _mm512_set1_epi32(int(limit)); n >= 16; keys += 16, n -= 16)
            total += std::popcount(unsigned(_mm512_cmpge_epu32_mask(_mm512_loadu_si512(keys), to)));
    if constexpr (sizeof(K) == 8)
        for (const __m512i to = _mm512_set1_epi64(std::int64_t(limit)); n >= 8; keys += 8, n -= 8)
            total += std::popcount(unsigned(_mm512_cmpge_epu64_mask(_mm512_loadu_si512(keys), to)));
#endif
    while (n > 0) {
        const std::int64_t run = std::min(n, entries_at_once);
        K count = 0;  // as wide as a key, so that both fill vectors alike
        for (std::int64_t i = 0; i < run; ++i) count += K(keys[i] >= limit);
        total += count, keys += run, n -= run;
    }
    return total;
}

// Narrows the interval that holds the k-th largest key: at the place that its rank suggests, or in halves after a step
// that did not help.
template <class K>
Kth<K> kth_by_narrowing(const K *keys, std::int64_t n, std::int64_t k) {
    K low = K(~K(0)), high = 0;
    for (std::int64_t i = 0; i < n; ++i) low = std::min(low, keys[i]), high = std::max(high, keys[i]);
    std::int64_t from = n, over = 0;  // keys of at least low, and above high
    for (bool halve = false; low < high;) {
        const K width = high - low;
        const double share = halve ? 0.5 : (static_cast<double>(from - k) + 0.5) / static_cast<double>(from - over);
        const K middle = low + std::clamp<K>(static_cast<K>(static_cast<double>(width) * share), 1, width);
        const std::int64_t there = count_at_least(keys, n, middle);
        if (there == k) {
            K least = high;
            for (std::int64_t i = 0; i < n; ++i) least = std::min(least, keys[i] >= middle ? keys[i] : high);
            return {least, 1, 1};
        }
        if (there > k) low = middle, from = there;
        else high = middle - 1, over = there;
        halve = high - low > width / 2;
    }
    const std::int64_t above = count_at_least(keys, n, K(low + 1));
    return {low, k - above, count_at_least(keys, n, low) - above};
}

// Two keys with the k-th largest of all between them or at them, most likely.
template <class K>
struct Bracket {
    K low, high;
};

inline std::uint32_t scrambled(std::uint64_t x) {  // the finaliser of SplitMix64
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return static_cast<std::uint32_t>(x >> 32);
}

// From one key at a place drawn by a fixed rule in each of `samples` stretches. Draws differ from try to try, and a
// failed try widens the bracket of the next.
template <class K, class KeyAt>
Bracket<K> bracket(std::int64_t n, std::int64_t k, std::uint64_t draw, int failed, KeyAt key_at) {
    const std::int64_t samples = n < 1 << 16 ? 256 : n < 1 << 22 ? 2048 : most_samples, stretch = n / samples;
    K sample[most_samples];
    for (std::int64_t i = 0; i < samples; ++i) {
        const std::uint64_t chance = scrambled((draw * most_samples + i + 1) * 0x9e3779b97f4a7c15u);
        sample[i] = key_at(i * stretch + static_cast<std::int64_t>(chance * static_cast<std::uint64_t>(stretch) >> 32));
    }
    // three standard deviations of the rank that the k-th largest has among the samples, if half are above it
    const double rank = static_cast<double>(k) / n * samples, margin = std::ldexp(1.5 * std::sqrt(samples), failed);
    const double above = rank - margin, below = rank + margin;
    return {below > samples ? K(0) : kth_by_narrowing(sample, samples, static_cast<std::int64_t>(below)).key,
            above < 1 ? K(~K(0)) : kth_by_narrowing(sample, samples, static_cast<std::int64_t>(above)).key};
}

struct Counts {
    std::int64_t at_low = 0, above_low = 0, at_high = 0, above_high = 0;  // keys that are that or larger
    std::int64_t within() const { return std::max<std::int64_t>(0, above_low - at_high); }  // 0 where both ends are one
    void operator+=(const Counts &more) {
        at_low += more.at_low, above_low += more.above_low, at_high += more.at_high, above_high += more.above_high;
    }
};

// Copies what lies strictly within the bracket to `to`, where there is room for n keys and a vector.
template <class K>
Counts collect(const K *keys, std::int64_t n, Bracket<K> b, K *to) {
    Counts counts;
    std::int64_t i = 0;
#if defined(__AVX512F__)
    if constexpr (sizeof(K) > 2) {
        constexpr int lanes = 64 / sizeof(K);
        const auto split = [&](auto x, auto low, auto high, auto at_least, auto above, auto compress) {
            const unsigned over = above(x, low), from = at_least(x, high), within = over & ~from;
            counts.at_low += std::popcount(unsigned(at_least(x, low)));
            counts.above_low += std::popcount(over), counts.at_high += std::popcount(from);
            counts.above_high += std::popcount(unsigned(above(x, high)));
            _mm512_storeu_si512(to, compress(within, x));
            to += std::popcount(within);
        };
        for (; i + lanes <= n; i += lanes) {
            const __m512i x = _mm512_loadu_si512(keys + i);
            if constexpr (sizeof(K) == 4)
                split(x, _mm512_set1_epi32(int(b.low)), _mm512_set1_epi32(int(b.high)),
                      [](auto p, auto q) { return _mm512_cmpge_epu32_mask(p, q); },
                      [](auto p, auto q) { return _mm512_cmpgt_epu32_mask(p, q); },
                      [](auto m, auto p) { return _mm512_maskz_compress_epi32(__mmask16(m), p); });
            else
                split(x, _mm512_set1_epi64(std::int64_t(b.low)), _mm512_set1_epi64(std::int64_t(b.high)),
                      [](auto p, auto q) { return _mm512_cmpge_epu64_mask(p, q); },
                      [](auto p, auto q) { return _mm512_cmpgt_epu64_mask(p, q); },
                      [](auto m, auto p) { return _mm512_maskz_compress_epi64(__mmask8(m), p); });
        }
    }
#endif
    const K *rest = keys + i;
    const std::int64_t left = n - i;
    counts += {count_at_least(rest, left, b.low), count_at_least(rest, left, K(b.low + 1)),
               count_at_least(rest, left, b.high),
               b.high == K(~K(0)) ? 0 : count_at_least(rest, left, K(b.high + 1))};
    for (; i < n; ++i) {
        const K key = keys[i];
        *to = key;
        to += (key > b.low) & (key < b.high);
    }
    return counts;
}

// Whether the k-th largest is an end of the bracket; else, whether it lies within it.
template <class K>
bool is_end(Bracket<K> b, const Counts &c, std::int64_t k, Kth<K> &found) {
    if (c.above_high < k && k <= c.at_high) return found = {b.high, k - c.above_high, c.at_high - c.above_high}, true;
    if (c.above_low < k && k <= c.at_low) return found = {b.low, k - c.above_low, c.at_low - c.above_low}, true;
    return false;
}
inline bool is_within(const Counts &c, std::int64_t k) { return c.at_high < k && k <= c.above_low; }

// One thread; `keys` and `spare` have room for n keys and a vector, and are overwritten.
template <class K>
Kth<K> kth_of_keys(K *keys, K *spare, std::int64_t n, std::int64_t k) {
    int failed = 0;
    Kth<K> found{};
    for (std::uint64_t draw = 0; n > few_keys; ++draw) {
        const auto b = bracket<K>(n, k, draw, failed, [&](std::int64_t i) { return keys[i]; });
        const Counts counts = collect(keys, n, b, spare);
        if (is_end(b, counts, k, found)) return found;
        failed = is_within(counts, k) ? 0 : failed + 1;
        if (failed) continue;
        std::swap(keys, spare);
        n = counts.within(), k -= counts.at_high;
    }
    return kth_by_narrowing(keys, n, k);
}

// body(part, begin, end) for the parts of [0, n), in parallel.
template <class Body>
void in_parts(std::int64_t n, std::int64_t parts, int threads, Body body) {
    const std::int64_t each = (n + parts - 1) / parts;
    parallel_for(parts, threads, [&](std::int64_t part, int) {
        body(part, std::min(n, part * each), std::min(n, (part + 1) * each));
    });
}

std::int64_t parts_of(std::int64_t n) { return std::clamp<std::int64_t>(n / entries_per_task, 1, most_tasks); }

template <class K>
Kth<K> kth_of_many(const K *bits, std::int64_t n, std::int64_t k, int threads, std::atomic<bool> &nan) {
    const std::int64_t parts = parts_of(n);
    Kth<K> found{};
    for (int failed = 0;; ++failed) {
        const auto b = bracket<K>(n, k, failed, failed, [&](std::int64_t i) { return key_of(bits[i]); });
        std::vector<Counts> each(parts);
        std::vector<std::vector<K>> within(parts);
        in_parts(n, parts, threads, [&](std::int64_t part, std::int64_t begin, std::int64_t end) {
            K keys[entries_at_once], chosen[entries_at_once + 64];
            in_runs(begin, end, entries_at_once, [&](std::int64_t from, std::int64_t stop) {
                if (make_keys(bits + from, stop - from, keys)) nan = true;
                const Counts counts = collect(keys, stop - from, b, chosen);
                each[part] += counts;
                within[part].insert(within[part].end(), chosen, chosen + counts.within());
            });
        });
        if (nan) return found;
        Counts counts;
        for (const Counts &part : each) counts += part;
        if (is_end(b, counts, k, found)) return found;
        if (!is_within(counts, k)) continue;
        const std::int64_t left = counts.within();
        std::unique_ptr<K[]> keys(new K[left + 64]), spare(new K[left + 64]);
        K *to = keys.get();
        for (const auto &part : within) to = std::copy(part.begin(), part.end(), to);
        return kth_of_keys(keys.get(), spare.get(), left, k - counts.at_high);
    }
}

// Marks every score above the key, and the first `ties` of the `equal` ones at it.
template <class K>
void write_mask(const K *bits, std::int64_t n, Kth<K> at, std::uint8_t *mask) {
    if (at.ties == at.equal) {
        for (std::int64_t i = 0; i < n; ++i) mask[i] = key_of(bits[i]) >= at.key;
    } else {
        for (std::int64_t i = 0; i < n; ++i) {
            const K key = key_of(bits[i]);
            const bool tie = (key == at.key) & (at.ties > 0);
            at.ties -= tie;
            mask[i] = (key > at.key) | tie;
        }
    }
}

template <class K>
void mask_of_many(const K *bits, std::int64_t n, Kth<K> at, std::uint8_t *mask, int threads) {
    const std::int64_t parts = parts_of(n);
    std::vector<Kth<K>> each(parts, at);
    if (at.ties < at.equal) {
        in_parts(n, parts, threads, [&](std::int64_t part, std::int64_t begin, std::int64_t end) {
            std::int64_t equal = 0;
            for (std::int64_t i = begin; i < end; ++i) equal += key_of(bits[i]) == at.key;
            each[part].equal = equal;
        });
        std::int64_t left = at.ties;
        for (auto &part : each) left -= part.ties = std::min(left, part.equal);
    }
    in_parts(n, parts, threads, [&](std::int64_t part, std::int64_t begin, std::int64_t end) {
        write_mask(bits + begin, end - begin, each[part], mask + begin);
    });
}

// Every key is compared with every other of its row: no branch depends on them.
template <int n, class K>
void tiny_rows(const K *keys, std::int64_t rows, std::int64_t k, K *kth, std::uint8_t *mask) {
    for (std::int64_t row = 0; row < rows; ++row, keys += n) {
        K before[n] = {}, found = 0;
        for (int j = 0; j < n; ++j)
            for (int i = 0; i < n; ++i) before[i] += K(keys[j] > keys[i]) | (K(keys[j] == keys[i]) & K(j < i));
        for (int i = 0; i < n; ++i) found |= before[i] == K(k - 1) ? keys[i] : K(0);
        kth[row] = bits_of(found);
        if (mask)
            for (int i = 0; i < n; ++i) mask[row * n + i] = before[i] < K(k);
    }
}

// Rows of at most `most` keys, whose scores lie one after the other.
template <int most, class K>
bool topk_of_tiny(const K *bits, std::int64_t rows, std::int64_t n, std::int64_t k, K *kth, std::uint8_t *mask) {
    if (n > most) {
        if constexpr (most < tiny_row) return topk_of_tiny<2 * most>(bits, rows, n, k, kth, mask);
    }
    constexpr std::int64_t at_once = entries_at_once / most;
    K keys[at_once * most];
    std::uint8_t marks[at_once * most];
    for (std::int64_t first = 0; first < rows; first += at_once) {
        const std::int64_t some = std::min(at_once, rows - first);
        if (make_keys(bits + first * n, some * n, keys)) return false;
        if (n == most) {
            tiny_rows<most>(keys, some, k, kth + first, mask ? mask + first * n : nullptr);
            continue;
        }
        for (std::int64_t row = some; row-- > 0;) {  // from the last on, so that rows can move apart in place
            std::copy_backward(keys + row * n, keys + (row + 1) * n, keys + row * most + n);
            std::fill(keys + row * most + n, keys + (row + 1) * most, K(0));  // comes after every number
        }
        tiny_rows<most>(keys, some, k, kth + first, marks);
        for (std::int64_t row = 0; mask && row < some; ++row)
            std::copy_n(marks + row * most, n, mask + (first + row) * n);
    }
    return true;
}

// -> whether no score is NaN. 1 <= k <= columns; a mask without rows is not wanted.
template <class K>
bool topk(Scores<K> scores, std::int64_t k, KthOut<K> kth, MaskOut mask_out, int threads) {
    const auto rows = static_cast<std::int64_t>(scores.shape(0)), n = static_cast<std::int64_t>(scores.shape(1));
    const K *bits = scores.data();
    K *to = kth.data();
    std::uint8_t *mask = mask_out.shape(0) ? mask_out.data() : nullptr;
    const WithoutGil released;
    std::atomic<bool> nan{false};
    if (n >= long_row) {
        for (std::int64_t i = 0; i < rows; ++i) {
            const Kth<K> at = kth_of_many(bits + i * n, n, k, threads, nan);
            if (nan) return false;
            to[i] = bits_of(at.key);
            if (mask) mask_of_many(bits + i * n, n, at, mask + i * n, threads);
        }
        return true;
    }
    std::vector<std::vector<K>> scratch(threads > 0 ? threads : get_num_threads());
    const std::int64_t each = std::max<std::int64_t>(1, entries_per_task / n);
    parallel_for((rows + each - 1) / each, threads, [&](std::int64_t task, int worker) {
        const std::int64_t first = task * each, stop = std::min(rows, first + each);
        if (n <= tiny_row) {
            if (!topk_of_tiny<4>(bits + first * n, stop - first, n, k, to + first, mask ? mask + first * n : nullptr))
                nan = true;
            return;
        }
        scratch[worker].resize(2 * (n + 64));
        K *keys = scratch[worker].data(), *spare = keys + n + 64;
        for (std::int64_t i = first; i < stop && !nan; ++i) {
            if (make_keys(bits + i * n, n, keys)) {
                nan = true;
                return;
            }
            const Kth<K> at = kth_of_keys(keys, spare, n, k);
            to[i] = bits_of(at.key);
            if (mask) write_mask(bits + i * n, n, at, mask + i * n);
        }
    });
    return !nan;
}

template <class K>
void bind(nb::module_ &m) {
    m.def("topk", &topk<K>, nb::arg("scores").noconvert(), nb::arg("k"), nb::arg("kth").noconvert(),
          nb::arg("mask").noconvert(), nb::arg("threads"));
}

}  // namespace
}  // namespace workbench

WORKBENCH_BIND(threshold) {
    workbench::bind<std::uint16_t>(m);
    workbench::bind<std::uint32_t>(m);
    workbench::bind<std::uint64_t>(m);
}
