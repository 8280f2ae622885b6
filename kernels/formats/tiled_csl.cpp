// Tiled-CSL (Xia 2023): encoding, decoding and the check of all that kernels rely on. tiled_csl.py defines the format.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <vector>

#include "python_call.hpp"
#include "registry.hpp"
#include "thread_pool.hpp"

namespace nb = nanobind;

namespace {

template <class T>
using Array = nb::ndarray<T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
template <class T>
using Matrix = nb::ndarray<T, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

constexpr int banks = 32, lanes = 32;  // of a GPU's on-chip memory, and of the threads that store at once
constexpr std::uint32_t magnitude = 0x7fff, infinity = 0x7c00;

struct Tiling {
    std::int64_t m, k, tile_m, tile_k, vector;
    std::int64_t across() const { return (k + tile_k - 1) / tile_k; }
    std::int64_t tiles() const { return (m + tile_m - 1) / tile_m * across(); }
    std::int64_t size() const { return tile_m * tile_k; }
};

std::int64_t permuted(std::int64_t row, std::int64_t column) { return column ^ (row % 8 * 8); }

// body(row of the tile, column of the tile, bits) for all places of a tile, row by row; outside the matrix bits are 0.
template <class Body>
void for_places(const Tiling &t, std::int64_t tile, const std::uint16_t *bits, Body body) {
    const std::int64_t top = tile / t.across() * t.tile_m, left = tile % t.across() * t.tile_k;
    for (std::int64_t r = 0; r < t.tile_m; ++r)
        for (std::int64_t c = 0; c < t.tile_k; ++c)
            body(r, c, top + r < t.m && left + c < t.k ? bits[(top + r) * t.k + left + c] : std::uint16_t(0));
}

void count(Matrix<const std::uint16_t> bits, std::int64_t tile_m, std::int64_t tile_k, Array<std::int64_t> counts) {
    const Tiling t{static_cast<std::int64_t>(bits.shape(0)), static_cast<std::int64_t>(bits.shape(1)), tile_m, tile_k, 1};
    const std::uint16_t *from = bits.data();
    std::int64_t *to = counts.data();
    const workbench::WithoutGil released;
    workbench::parallel_for(t.tiles(), 0, [&](std::int64_t tile, int) {
        std::int64_t found = 0;
        for_places(t, tile, from, [&](std::int64_t, std::int64_t, std::uint16_t x) { found += (x & magnitude) != 0; });
        to[tile] = found;
    });
}

// Words of one tile by bank, dealt again so that `lanes` words stored at once meet few banks twice.
class Dealer {
  public:
    explicit Dealer(std::int64_t size) : list_(banks) {
        for (auto &bank : list_) bank.reserve(size / banks);
    }

    void begin() {
        for (auto &bank : list_) bank.clear();
        std::fill(zero_, zero_ + banks, std::int64_t(-1));
    }
    void see(std::uint32_t position, std::uint16_t value) {
        const int bank = static_cast<int>(position / 2 % banks);
        if (value & magnitude)
            list_[bank].push_back(position << 16 | value);
        else if (zero_[bank] < 0)
            zero_[bank] = position;
    }
    void pad(std::int64_t words) {
        for (; words > 0; --words) {
            int least = 0;
            for (int b = 1; b < banks; ++b)
                if (list_[b].size() < list_[least].size()) least = b;
            list_[least].push_back(static_cast<std::uint32_t>(zero_[least]) << 16);
        }
    }
    void deal(std::int64_t words, std::int64_t vector, std::uint32_t *to) {
        const std::int64_t vectors = words / vector, rounds = vectors / lanes, rest = vectors % lanes;
        std::uint32_t *tail = to + rounds * lanes * vector;
        // What is pushed first is emitted last, so every lane's words come out turned round.
        for (std::int64_t v = 0; v < vector; ++v)
            for (std::int64_t b = 0; b < rest; ++b) tail[b * vector + vector - 1 - v] = pop();
        for (std::int64_t i = 0; i < rounds * vector; ++i) {
            const std::int64_t out = rounds * vector - 1 - i;
            for (std::int64_t b = 0; b < lanes; ++b) to[(out / vector * lanes + b) * vector + out % vector] = pop();
        }
    }

  private:
    std::uint32_t pop() {
        int most = 0;
        for (int b = 1; b < banks; ++b)
            if (list_[b].size() > list_[most].size()) most = b;
        const std::uint32_t word = list_[most].back();
        list_[most].pop_back();
        return word;
    }
    std::vector<std::vector<std::uint32_t>> list_;
    std::int64_t zero_[banks];
};

// In row order the words that fill up a tile lie where its last zero lies.
void emit_rows(const Tiling &t, std::int64_t tile, const std::uint16_t *bits, std::int64_t pads, std::uint32_t *to) {
    std::int64_t last_zero = -1;
    if (pads)
        for_places(t, tile, bits, [&](std::int64_t r, std::int64_t c, std::uint16_t x) {
            if (!(x & magnitude)) last_zero = r * t.tile_k + c;
        });
    for_places(t, tile, bits, [&](std::int64_t r, std::int64_t c, std::uint16_t x) {
        const std::uint32_t position = static_cast<std::uint32_t>(r * t.tile_k + permuted(r, c));
        if (x & magnitude) *to++ = position << 16 | x;
        if (r * t.tile_k + c == last_zero) to = std::fill_n(to, pads, position << 16);
    });
}

void encode(Matrix<const std::uint16_t> bits, std::int64_t tile_m, std::int64_t tile_k, std::int64_t vector, bool reorder,
            Array<const std::int64_t> counts, Array<const std::int32_t> offsets, Array<std::uint32_t> nz) {
    const Tiling t{static_cast<std::int64_t>(bits.shape(0)), static_cast<std::int64_t>(bits.shape(1)), tile_m, tile_k, vector};
    const std::uint16_t *from = bits.data();
    const std::int64_t *nonzeros = counts.data();
    const std::int32_t *starts = offsets.data();
    std::uint32_t *to = nz.data();
    const workbench::WithoutGil released;
    const int workers = workbench::get_num_threads();
    std::vector<Dealer> dealers(reorder ? workers : 0, Dealer(t.size()));
    workbench::parallel_for(t.tiles(), workers, [&](std::int64_t tile, int worker) {
        const std::int64_t begin = starts[tile] * vector, words = starts[tile + 1] * vector - begin;
        if (!reorder) return emit_rows(t, tile, from, words - nonzeros[tile], to + begin);
        Dealer &dealer = dealers[worker];
        dealer.begin();
        for_places(t, tile, from, [&](std::int64_t r, std::int64_t c, std::uint16_t x) {
            dealer.see(static_cast<std::uint32_t>(r * t.tile_k + permuted(r, c)), x);
        });
        dealer.pad(words - nonzeros[tile]);
        dealer.deal(words, vector, to + begin);
    });
}

void decode(Array<const std::uint32_t> nz, Array<const std::int32_t> offsets, std::int64_t tile_m, std::int64_t tile_k,
            std::int64_t vector, Matrix<std::uint16_t> out) {
    const Tiling t{static_cast<std::int64_t>(out.shape(0)), static_cast<std::int64_t>(out.shape(1)), tile_m, tile_k, vector};
    const std::uint32_t *words = nz.data();
    const std::int32_t *starts = offsets.data();
    std::uint16_t *to = out.data();
    const workbench::WithoutGil released;
    workbench::parallel_for(t.tiles(), 0, [&](std::int64_t tile, int) {
        const std::int64_t top = tile / t.across() * tile_m, left = tile % t.across() * tile_k;
        for (std::int64_t p = starts[tile] * vector; p < starts[tile + 1] * vector; ++p) {
            const std::int64_t position = words[p] >> 16, r = position / tile_k, c = permuted(r, position % tile_k);
            if (words[p] & magnitude) to[(top + r) * t.k + left + c] = static_cast<std::uint16_t>(words[p]);
        }
    });
}

enum Fault : std::int64_t { none = 0, outside_tile = 1, taken = 2, not_finite = 3, outside_matrix = 4 };

// -> (fault, the first faulty word, nonzeros, do rows rise within every tile). Offsets have been checked.
nb::tuple check(Array<const std::uint32_t> nz, Array<const std::int32_t> offsets, std::int64_t m, std::int64_t k,
                std::int64_t tile_m, std::int64_t tile_k, std::int64_t vector) {
    const Tiling t{m, k, tile_m, tile_k, vector};
    const std::uint32_t *words = nz.data();
    const std::int32_t *starts = offsets.data();
    std::atomic<std::int64_t> first{INT64_MAX}, nonzeros{0};  // first: 8 * word + fault
    std::atomic<bool> rising{true};
    {
        const workbench::WithoutGil released;
        const int workers = workbench::get_num_threads();
        std::vector<std::vector<bool>> places(workers, std::vector<bool>(t.size()));
        workbench::parallel_for(t.tiles(), workers, [&](std::int64_t tile, int worker) {
            const std::int64_t begin = starts[tile] * vector, end = starts[tile + 1] * vector;
            const std::int64_t rows = m - tile / t.across() * tile_m, columns = k - tile % t.across() * tile_k;
            std::vector<bool> &seen = places[worker];
            std::int64_t worst = INT64_MAX, found = 0;
            const auto fault = [&](std::int64_t p, Fault kind) { worst = std::min(worst, 8 * p + kind); };
            for (std::int64_t p = begin; p < end; ++p) {
                const std::int64_t position = words[p] >> 16, r = position / tile_k;
                if (p > begin && r < (words[p - 1] >> 16) / tile_k) rising = false;
                if (position >= t.size()) {
                    fault(p, outside_tile);
                } else if (words[p] & magnitude) {
                    ++found;
                    if (seen[position]) fault(p, taken);
                    seen[position] = true;
                    if ((words[p] & infinity) == infinity) fault(p, not_finite);
                    if (r >= rows || permuted(r, position % tile_k) >= columns) fault(p, outside_matrix);
                }
            }
            for (std::int64_t p = begin; p < end; ++p)
                if (!(words[p] & magnitude) && (words[p] >> 16) < t.size() && seen[words[p] >> 16]) fault(p, taken);
            for (std::int64_t p = begin; p < end; ++p)
                if ((words[p] >> 16) < t.size()) seen[words[p] >> 16] = false;
            nonzeros += found;
            std::int64_t known = first;
            while (worst < known && !first.compare_exchange_weak(known, worst)) {
            }
        });
    }
    const std::int64_t worst = first;
    if (worst == INT64_MAX) return nb::make_tuple(0, 0, nonzeros.load(), rising.load());
    return nb::make_tuple(worst % 8, worst / 8, 0, false);
}

// ends[tile * tile_m + r]: words of the tile up to the end of its row r. Rows rise within every tile.
void row_ends(Array<const std::uint32_t> nz, Array<const std::int32_t> offsets, std::int64_t tile_m, std::int64_t tile_k,
              std::int64_t vector, Array<std::int32_t> ends) {
    const std::int64_t tiles = static_cast<std::int64_t>(ends.shape(0)) / tile_m;
    const std::uint32_t *words = nz.data();
    const std::int32_t *starts = offsets.data();
    std::int32_t *to = ends.data();
    const workbench::WithoutGil released;
    workbench::parallel_for(tiles, 0, [&](std::int64_t tile, int) {
        const std::int64_t begin = starts[tile] * vector, end = starts[tile + 1] * vector;
        std::int64_t p = begin;
        for (std::int64_t r = 0; r < tile_m; ++r) {
            while (p < end && (words[p] >> 16) / tile_k == r) ++p;
            to[tile * tile_m + r] = static_cast<std::int32_t>(p - begin);
        }
    });
}

}  // namespace

WORKBENCH_BIND(tiled_csl) {
    m.def("tiled_csl_count", &count, nb::arg("bits").noconvert(), nb::arg("tile_m"), nb::arg("tile_k"),
          nb::arg("counts").noconvert());
    m.def("tiled_csl_encode", &encode, nb::arg("bits").noconvert(), nb::arg("tile_m"), nb::arg("tile_k"), nb::arg("vector"),
          nb::arg("reorder"), nb::arg("counts").noconvert(), nb::arg("offsets").noconvert(), nb::arg("nz").noconvert());
    m.def("tiled_csl_decode", &decode, nb::arg("nz").noconvert(), nb::arg("offsets").noconvert(), nb::arg("tile_m"),
          nb::arg("tile_k"), nb::arg("vector"), nb::arg("out").noconvert());
    m.def("tiled_csl_check", &check, nb::arg("nz").noconvert(), nb::arg("offsets").noconvert(), nb::arg("m"), nb::arg("k"),
          nb::arg("tile_m"), nb::arg("tile_k"), nb::arg("vector"));
    m.def("tiled_csl_row_ends", &row_ends, nb::arg("nz").noconvert(), nb::arg("offsets").noconvert(), nb::arg("tile_m"),
          nb::arg("tile_k"), nb::arg("vector"), nb::arg("ends").noconvert());
}
