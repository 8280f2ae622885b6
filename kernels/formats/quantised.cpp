// Groups of numbers as codes of few bits: ranges, codes, and how codes are packed.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <algorithm>
#include <cstdint>

#include "packed_codes.hpp"
#include "python_call.hpp"
#include "registry.hpp"
#include "simd.hpp"
#include "thread_pool.hpp"

namespace nb = nanobind;
using namespace workbench::simd;

namespace {

template <class T>
using Table = nb::ndarray<const T, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
template <class T>
using TableOut = nb::ndarray<T, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

constexpr std::int64_t piece = 256;  // rows of one task

template <class Body>
void over_rows(std::int64_t rows, int threads, Body body) {
    const workbench::WithoutGil released;
    workbench::parallel_for((rows + piece - 1) / piece, threads, [&](std::int64_t task, int) {
        for (std::int64_t i = task * piece; i < std::min(rows, (task + 1) * piece); ++i) body(i);
    });
}

vf least_of(vf a, vf b) { return sub(set1(0.0f), max(sub(set1(0.0f), a), sub(set1(0.0f), b))); }

// The least and the largest of every row.
void row_ranges(Table<float> x, TableOut<float> out, int threads) {
    const std::int64_t n = static_cast<std::int64_t>(x.shape(1));
    over_rows(static_cast<std::int64_t>(x.shape(0)), threads, [&](std::int64_t i) {
        const float *row = x.data() + i * n;
        float low = row[0], high = row[0];
        std::int64_t j = 0;
        if (n >= W) {
            vf least = load(row), most = least;
            for (j = W; j + W <= n; j += W) {
                const vf line = load(row + j);
                least = least_of(least, line), most = max(most, line);
            }
            high = largest(most), low = -largest(sub(set1(0.0f), least));
        }
        for (; j < n; ++j) low = std::min(low, row[j]), high = std::max(high, row[j]);
        out.data()[2 * i] = low, out.data()[2 * i + 1] = high;
    });
}

// The nearest level of every number of a row, half to even; scale 0 has one level.
void row_codes(Table<float> x, Table<float> steps, int top, TableOut<std::uint8_t> out, int threads) {
    const std::int64_t n = static_cast<std::int64_t>(x.shape(1));
    over_rows(static_cast<std::int64_t>(x.shape(0)), threads, [&](std::int64_t i) {
        const float scale = steps.data()[2 * i], zero = steps.data()[2 * i + 1], most = static_cast<float>(top);
        const float *row = x.data() + i * n;
        std::uint8_t *codes = out.data() + i * n;
        if (scale == 0.0f) {
            std::fill(codes, codes + n, std::uint8_t(0));
            return;
        }
        float level[W];
        std::int64_t j = 0;
        for (; j < n; j += W) {
            const int count = static_cast<int>(std::min<std::int64_t>(W, n - j));
            const vf line = count == W ? load(row + j) : load(row + j, first_lanes<float>(count));
            vf found = round(sub(line, set1(zero)) / set1(scale));
            found = max(set1(0.0f), least_of(found, set1(most)));
            store(level, found);
            for (int k = 0; k < count; ++k) codes[j + k] = static_cast<std::uint8_t>(level[k]);
        }
    });
}

void pack_codes(Table<std::uint8_t> codes, int bits, TableOut<std::uint8_t> out, int threads) {
    const std::int64_t n = static_cast<std::int64_t>(codes.shape(1)), units = (n + 15) / 16;
    over_rows(static_cast<std::int64_t>(codes.shape(0)), threads, [&](std::int64_t i) {
        const std::uint8_t *row = codes.data() + i * n;
        std::uint8_t *to = out.data() + i * units * 2 * bits, last[16] = {};
        for (std::int64_t j = 0; j < units; ++j, to += 2 * bits) {
            const bool whole = 16 * (j + 1) <= n;
            if (!whole) std::copy(row + 16 * j, row + n, last);
            workbench::codes::pack16(whole ? row + 16 * j : last, bits, to);
        }
    });
}

void unpack_codes(Table<std::uint8_t> packed, int bits, TableOut<std::uint8_t> out, int threads) {
    const std::int64_t n = static_cast<std::int64_t>(out.shape(1)), units = (n + 15) / 16;
    over_rows(static_cast<std::int64_t>(out.shape(0)), threads, [&](std::int64_t i) {
        const std::uint8_t *from = packed.data() + i * units * 2 * bits;
        std::uint8_t *row = out.data() + i * n, last[16];
        for (std::int64_t j = 0; j < units; ++j, from += 2 * bits) {
            const bool whole = 16 * (j + 1) <= n;
            workbench::codes::unpack16(from, bits, whole ? row + 16 * j : last);
            if (!whole) std::copy(last, last + (n - 16 * j), row + 16 * j);
        }
    });
}

}  // namespace

WORKBENCH_BIND(quantised) {
    m.def("row_ranges", &row_ranges, nb::arg("x").noconvert(), nb::arg("out").noconvert(), nb::arg("threads"));
    m.def("row_codes", &row_codes, nb::arg("x").noconvert(), nb::arg("steps").noconvert(), nb::arg("top"),
          nb::arg("out").noconvert(), nb::arg("threads"));
    m.def("pack_codes", &pack_codes, nb::arg("codes").noconvert(), nb::arg("bits"), nb::arg("out").noconvert(), nb::arg("threads"));
    m.def("unpack_codes", &unpack_codes, nb::arg("packed").noconvert(), nb::arg("bits"), nb::arg("out").noconvert(), nb::arg("threads"));
}
