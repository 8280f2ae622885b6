// The k-th largest score of each row and the mask of the k largest: radix selection on the bits of IEEE floats. Scores
// come as the unsigned integers of the same bits, so that one template serves float16, float32 and float64.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "python_call.hpp"
#include "registry.hpp"
#include "thread_pool.hpp"

namespace nb = nanobind;

namespace workbench {
namespace {

template <class K>
using Scores = nb::ndarray<const K, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
template <class K>
using KthOut = nb::ndarray<K, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using MaskOut = nb::ndarray<std::uint8_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

constexpr int digit_bits = 11, bins = 1 << digit_bits;
constexpr std::int64_t tiny_row = 16, few_keys = 256, long_row = 1 << 17;
constexpr std::int64_t entries_per_task = 1 << 16, most_tasks = 256, entries_at_once = 1024;

template <class K>
constexpr int width = 8 * sizeof(K);
template <class K>
constexpr K sign = K(K(1) << (width<K> - 1));
template <class K>
constexpr K infinity = K(sizeof(K) == 2 ? 0x7c00u : sizeof(K) == 4 ? 0x7f800000u : 0x7ff0000000000000u);

// Keys have the order of the floats whose bits are given; both zeros have one key.
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

// The k-th largest key; `equal` keys have its value, and `ties` of them are among the k largest.
template <class K>
struct Kth {
    K key;
    std::int64_t ties, equal;
};

// Adds up the digits of keys in four histograms: neighbours often share a bin, and would wait for each other in one.
template <class K>
void count_digits(const K *keys, std::int64_t n, int shift, K last, std::uint32_t (*counts)[bins]) {
    std::int64_t i = 0;
    for (; i + 4 <= n; i += 4)
        for (int copy = 0; copy < 4; ++copy) ++counts[copy][K(keys[i + copy] >> shift) & last];
    for (; i < n; ++i) ++counts[0][K(keys[i] >> shift) & last];
}

// From the highest bin down to the one that holds the k-th largest; k becomes its rank within that bin.
template <class Count>
int bin_of_kth(int highest, std::int64_t &k, Count count) {
    int bin = highest;
    for (std::int64_t there; (there = count(bin)) < k; --bin) k -= there;
    return bin;
}

// One thread; `keys` are overwritten. Keys may differ in their lowest `shift` bits only, `found` are the others.
template <class K>
Kth<K> kth_of_few(K *keys, std::int64_t n, std::int64_t k, int shift = width<K>, K found = 0) {
    while (n > few_keys && shift > 0) {
        const int low = std::max(0, shift - digit_bits);
        const K last = K((std::int64_t(1) << (shift - low)) - 1);
        std::uint32_t counts[4][bins];
        for (auto &copy : counts) std::fill_n(copy, std::size_t(last) + 1, 0u);
        count_digits(keys, n, low, last, counts);
        const auto count = [&](int bin) {
            return std::int64_t(counts[0][bin]) + counts[1][bin] + counts[2][bin] + counts[3][bin];
        };
        const int bin = bin_of_kth(static_cast<int>(last), k, count);
        found = K((std::uint64_t(found) << (shift - low)) | std::uint64_t(bin));
        shift = low;
        const std::int64_t there = count(bin);
        if (shift == 0) return {found, k, there};
        if (there < n) {
            std::int64_t kept = 0;
            for (std::int64_t i = 0; i < n; ++i) {
                const K key = keys[i];
                keys[kept] = key;
                kept += (K(key >> low) & last) == K(bin);
            }
            n = there;
        }
    }
    std::nth_element(keys, keys + k - 1, keys + n, std::greater<K>());
    const K key = keys[k - 1];
    const std::int64_t above = std::count_if(keys, keys + k, [&](K x) { return x > key; });
    return {key, k - above, std::count(keys, keys + n, key)};
}

// body(part, begin, end) for the parts of [0, n), in parallel.
template <class Body>
void in_parts(std::int64_t n, std::int64_t parts, int threads, Body body) {
    const std::int64_t each = (n + parts - 1) / parts;
    parallel_for(parts, threads, [&](std::int64_t part, int) { body(part, std::min(n, part * each), std::min(n, (part + 1) * each)); });
}

std::int64_t parts_of(std::int64_t n) {
    return std::clamp<std::int64_t>(n / entries_per_task, 1, most_tasks);
}

// Several threads: each pass counts one digit in parts, then copies the keys of the bin that holds the k-th largest.
template <class K>
Kth<K> kth_of_many(const K *bits, std::int64_t n, std::int64_t k, int threads, std::atomic<bool> &nan) {
    std::unique_ptr<K[]> keys;
    K found = 0;
    for (int shift = width<K>; shift > 0;) {
        const int low = std::max(0, shift - digit_bits);
        const K last = K((std::int64_t(1) << (shift - low)) - 1);
        const std::int64_t parts = parts_of(n);
        std::vector<std::uint32_t> counts(parts * bins);
        // body(keys, how many) for runs of at most entries_at_once keys of a part, made from bits as long as none are held
        const auto in_keys = [&](std::int64_t begin, std::int64_t end, auto body) {
            K made[entries_at_once];
            in_runs(begin, end, entries_at_once, [&](std::int64_t i, std::int64_t stop) {
                if (!keys && make_keys(bits + i, stop - i, made)) nan = true;
                body(keys ? keys.get() + i : made, stop - i);
            });
        };
        in_parts(n, parts, threads, [&](std::int64_t part, std::int64_t begin, std::int64_t end) {
            std::uint32_t local[4][bins] = {}, *to = counts.data() + part * bins;
            in_keys(begin, end, [&](const K *at, std::int64_t there) { count_digits(at, there, low, last, local); });
            for (int bin = 0; bin < bins; ++bin) to[bin] = local[0][bin] + local[1][bin] + local[2][bin] + local[3][bin];
        });
        if (nan) return {};
        const auto count = [&](int bin) {
            std::int64_t total = 0;
            for (std::int64_t part = 0; part < parts; ++part) total += counts[part * bins + bin];
            return total;
        };
        const int bin = bin_of_kth(static_cast<int>(last), k, count);
        found = K((std::uint64_t(found) << (shift - low)) | std::uint64_t(bin));
        shift = low;
        const std::int64_t there = count(bin);
        if (shift == 0) return {found, k, there};
        if (there == n && keys) continue;
        std::unique_ptr<K[]> kept(new K[there]);
        std::vector<std::int64_t> starts(parts);
        for (std::int64_t part = 1; part < parts; ++part) starts[part] = starts[part - 1] + counts[(part - 1) * bins + bin];
        in_parts(n, parts, threads, [&](std::int64_t part, std::int64_t begin, std::int64_t end) {
            K *to = kept.get() + starts[part], chosen[entries_at_once + 1];
            in_keys(begin, end, [&](const K *at, std::int64_t many) {
                std::int64_t taken = 0;
                for (std::int64_t i = 0; i < many; ++i) {
                    chosen[taken] = at[i];
                    taken += (K(at[i] >> low) & last) == K(bin);
                }
                to = std::copy_n(chosen, taken, to);
            });
        });
        keys = std::move(kept);
        n = there;
        if (n <= entries_per_task) return kth_of_few(keys.get(), n, k, shift, found);
    }
    return {};  // not reached: the last digit returns
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

// Every score is compared with every other of its row: no branch depends on them.
template <class K>
void tiny(const K *keys, std::int64_t n, std::int64_t k, K &kth, std::uint8_t *mask) {
    for (std::int64_t i = 0; i < n; ++i) {
        int before = 0;
        for (std::int64_t j = 0; j < n; ++j) before += (keys[j] > keys[i]) | ((j < i) & (keys[j] == keys[i]));
        if (before == k - 1) kth = bits_of(keys[i]);
        if (mask) mask[i] = before < k;
    }
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
        scratch[worker].resize(n);
        K *keys = scratch[worker].data();
        for (std::int64_t i = task * each; i < std::min(rows, (task + 1) * each); ++i) {
            const K *row = bits + i * n;
            if (make_keys(row, n, keys)) {
                nan = true;
                return;
            }
            std::uint8_t *marks = mask ? mask + i * n : nullptr;
            if (n == 4) {
                tiny(keys, 4, k, to[i], marks);
            } else if (n <= tiny_row) {
                tiny(keys, n, k, to[i], marks);
            } else {
                const Kth<K> at = kth_of_few(keys, n, k);
                to[i] = bits_of(at.key);
                if (marks) write_mask(row, n, at, marks);
            }
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
