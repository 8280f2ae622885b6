// SMASH's hash tables: windows of rows, and the serial replay of every table (see piuma_tables.py).
// Every buffer arrives validated, so loops throw only what ends a call that nobody waits for.
#include "piuma.hpp"

#include <algorithm>
#include <bit>
#include <vector>

#include "python_call.hpp"
#include "registry.hpp"
#include "thread_pool.hpp"

namespace nb = nanobind;
using std::int64_t;
using std::size_t;
using namespace workbench::piuma;

namespace {

constexpr int64_t HISTOGRAM_BINS = 65;  // 0 .. 63 extra probes, and 64 or more
enum HashKind { HIGH, LOW, MULTIPLICATIVE };

// Windows of consecutive rows whose summed need fits the capacity; a row above it stands alone. Returns their number.
int64_t plan(In need, double capacity, Out row_start) {
    const auto m = static_cast<int64_t>(need.size());
    require(static_cast<int64_t>(row_start.size()) >= m + 1, "piuma_plan: row_start needs m + 1 places");
    const int64_t *f = need.data();
    int64_t *start = row_start.data();
    int64_t windows = 0;
    double filled = 0;
    for (int64_t i = 0; i < m; ++i) {
        if (i == 0 || filled + static_cast<double>(f[i]) > capacity) {
            start[windows++] = i;
            filled = 0;
        }
        filled += static_cast<double>(f[i]);
    }
    start[windows] = m;
    return windows;
}

struct Operands {
    const int64_t *a_indptr, *a_indices, *b_indptr, *b_indices;
    const int64_t *row_start, *row_stop, *column_start, *column_stop, *item_start;
};

template <HashKind kind> inline int64_t home(int64_t tag, int64_t mask, int shift, int log2_slots) {
    if constexpr (kind == HIGH) return tag >> shift;
    if constexpr (kind == LOW) return tag & mask;
    return log2_slots == 0 ? 0 : static_cast<int64_t>((static_cast<uint64_t>(tag) * 0x9E3779B97F4A7C15ull) >> (64 - log2_slots));
}

int high_shift(int64_t tags, int log2_slots) {
    const int width = tags <= 1 ? 0 : std::bit_width(static_cast<uint64_t>(tags - 1));  // ceil(log2(tags))
    return std::max(0, width - log2_slots);
}

// Replays one window in row-major order. Returns false if a probe went a whole turn without finding a place.
template <HashKind kind>
bool replay(const Operands &x, int64_t w, int log2_slots, int64_t *table, int32_t *claimed, int64_t claimed_capacity,
            bool keep, int64_t *products, int64_t *probes, int64_t *inserts, int64_t *histogram) {
    const int64_t slots = int64_t{1} << log2_slots, mask = slots - 1;
    const int64_t c0 = x.column_start[w], columns = x.column_stop[w] - c0;
    const int64_t first = x.row_start[w];
    const int shift = high_shift((x.row_stop[w] - first) * columns, log2_slots);
    int64_t item = x.item_start[w], occupied = 0;
    bool fits = true;
    workbench::Pace pace;
    for (int64_t i = first; i < x.row_stop[w] && fits; ++i) {
        const int64_t base = (i - first) * columns - c0;
        for (int64_t e = x.a_indptr[i]; e < x.a_indptr[i + 1] && fits; ++e, ++item) {
            const int64_t k = x.a_indices[e];
            int64_t p = 0, q = 0, u = 0;
            for (int64_t s = x.b_indptr[k]; s < x.b_indptr[k + 1]; ++s) {
                const int64_t j = x.b_indices[s];
                if (j < c0 || j >= c0 + columns) continue;
                const int64_t tag = base + j;
                int64_t h = home<kind>(tag, mask, shift, log2_slots), extra = 0;
                while (table[h] != tag && table[h] != EMPTY && extra < slots) {
                    h = (h + 1) & mask;
                    ++extra;
                }
                if (extra == slots) {
                    fits = false;
                    break;
                }
                if (table[h] == EMPTY) {
                    table[h] = tag;
                    if (occupied < claimed_capacity) claimed[occupied] = static_cast<int32_t>(h);
                    ++occupied;
                    ++u;
                }
                ++p;
                q += extra;
                ++histogram[std::min(extra, HISTOGRAM_BINS - 1)];
            }
            products[item] = p;
            probes[item] = q;
            inserts[item] = u;
            pace.step(x.b_indptr[k + 1] - x.b_indptr[k] + q);
        }
    }
    if (keep) return fits;
    if (occupied > claimed_capacity) {
        std::fill(table, table + slots, EMPTY);
    } else {
        for (int64_t o = 0; o < occupied; ++o) table[claimed[o]] = EMPTY;
    }
    return fits;
}

// Replays windows [w0, w1). tables: one per worker, all EMPTY before and after (unless keep). Returns the first window
// whose table ran full, or -1.
int64_t trace(In a_indptr, In a_indices, In b_indptr, In b_indices, In row_start, In row_stop, In column_start,
              In column_stop, In item_start, int hash, int log2_slots, int64_t w0, int64_t w1, bool keep,
              Matrix<int64_t> tables, Matrix<int32_t> claimed, Out products, Out probes, Out inserts, Out histogram) {
    const auto windows = static_cast<int64_t>(row_start.size());
    const auto workers = static_cast<int>(tables.shape(0));
    require(0 <= w0 && w0 <= w1 && w1 <= windows, "piuma_trace: window range out of bounds");
    require(row_stop.size() == row_start.size() && column_start.size() == row_start.size() &&
                column_stop.size() == row_start.size() && item_start.size() == row_start.size() + 1,
            "piuma_trace: window arrays differ in length");
    require(0 <= log2_slots && log2_slots <= 30 && workers >= 1 && claimed.shape(0) == tables.shape(0) &&
                static_cast<int64_t>(tables.shape(1)) == (int64_t{1} << log2_slots),
            "piuma_trace: tables must be (workers, slots)");
    require(products.size() == probes.size() && probes.size() == inserts.size() &&
                static_cast<int64_t>(products.size()) >= item_start.data()[windows] &&
                static_cast<int64_t>(histogram.size()) == HISTOGRAM_BINS,
            "piuma_trace: output arrays too short");
    const Operands x{a_indptr.data(), a_indices.data(), b_indptr.data(), b_indices.data(), row_start.data(),
                     row_stop.data(), column_start.data(), column_stop.data(), item_start.data()};
    const auto slots = static_cast<int64_t>(tables.shape(1)), capacity = static_cast<int64_t>(claimed.shape(1));
    std::vector<int64_t> counts(static_cast<size_t>(workers) * HISTOGRAM_BINS, 0);
    std::vector<int64_t> full(static_cast<size_t>(workers), windows);
    const auto body = [&](int64_t task, int worker) {
        const int64_t w = w0 + task;
        int64_t *table = tables.data() + worker * slots;
        int32_t *places = claimed.data() + worker * capacity;
        int64_t *counted = counts.data() + worker * HISTOGRAM_BINS;
        const auto run = hash == HIGH ? replay<HIGH> : hash == LOW ? replay<LOW> : replay<MULTIPLICATIVE>;
        if (!run(x, w, log2_slots, table, places, capacity, keep, products.data(), probes.data(), inserts.data(), counted))
            full[static_cast<size_t>(worker)] = std::min(full[static_cast<size_t>(worker)], w);
    };
    {
        const workbench::WithoutGil released;
        workbench::parallel_for(w1 - w0, workers, body);
    }
    for (int worker = 0; worker < workers; ++worker)
        for (int64_t bin = 0; bin < HISTOGRAM_BINS; ++bin) histogram.data()[bin] += counts[worker * HISTOGRAM_BINS + bin];
    const int64_t first_full = *std::min_element(full.begin(), full.end());
    return first_full < windows ? first_full : -1;
}

}  // namespace

WORKBENCH_BIND(bind_piuma_tables) {
    m.def("piuma_plan", &plan);
    m.def("piuma_trace", &trace);
}
