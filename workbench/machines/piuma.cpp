// The fluid event simulation of one PIUMA block (see piuma.py).
// Every buffer arrives validated, so loops throw only what ends a call that nobody waits for.
#include "piuma.hpp"
#include "piuma_timeline.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "python_call.hpp"
#include "registry.hpp"

namespace nb = nanobind;
using std::int64_t;
using std::size_t;
using namespace workbench::piuma;

namespace {

constexpr double IDLE = std::numeric_limits<double>::infinity();

// Constants of the machine, by the names of PiumaConfig.
struct Machine {
    int64_t n_mtc = 1, threads_per_mtc = 1, token_pp = 1, log2_slots = 0, line = 64, word = 8;
    double l_pipe = 0, l_dram = 0, l_spad = 0, l_atomic = 0, l_store = 0, bw = 0, dma_bw = 0, wb_eff = 1;
    double c_nz = 0, c_pp = 0, c_probe = 0, c_merge = 0, c_alloc = 0, c_scan = 0, c_wb = 0, c_static = 0, c_dyn = 0, c_dma = 0;
    double fill_bw = 1, l_net = 0, net_bw = 0;
};

struct Token {
    int64_t row, inserts;
    double instructions, latency, bytes, network_bytes;
};

enum Stream { READ_A, READ_POINTERS, READ_B, WRITE_C, STREAMS };
enum Phase { COUNTING, HASHING, WRITE_BACK, CLEARING, DMA_WAIT, PHASES };
enum WindowColumn { W_START, W_HASHED, W_DONE, W_DMA_START, W_DMA_DONE, W_COLUMNS };

// One block of the machine running one share of the windows.
class Simulation {
  public:
    Simulation(Machine machine, int version, int64_t block, int64_t blocks, int64_t first_row, In a_indptr, In a_indices,
               In b_indptr, In row_start, In row_stop, In item_start, In products, In probes, In inserts,
               Matrix<double> thread_bins, Matrix<double> bins, OutReal thread_busy, OutReal streams, OutReal phases,
               Matrix<double> window_times, Out event_thread, Out event_row, Out event_window, OutReal event_start, OutReal event_stop)
        : c(machine), version(version), block(block), blocks(blocks), first_row(first_row),
          threads(machine.n_mtc * machine.threads_per_mtc), a_indptr(a_indptr), a_indices(a_indices), b_indptr(b_indptr),
          row_start(row_start), row_stop(row_stop), item_start(item_start), products(products), probes(probes), inserts(inserts),
          thread_bins(thread_bins), bins(bins), thread_busy(thread_busy), streams(streams), phases(phases),
          window_times(window_times), event_thread(event_thread), event_row(event_row), event_window(event_window),
          event_start(event_start), event_stop(event_stop), timeline(0, {}, nullptr) {
        const size_t windows = row_start.size(), n_bins = bins.shape(1);
        require(1 <= version && version <= 3 && blocks >= 1 && 0 <= block && block < blocks, "piuma: version or block out of range");
        require(machine.n_mtc >= 1 && machine.threads_per_mtc >= 1 && threads <= 65536, "piuma: thread count out of range");
        require(row_stop.size() == windows && item_start.size() == windows + 1 && window_times.shape(0) == windows &&
                    window_times.shape(1) == W_COLUMNS,
                "piuma: window arrays differ in length");
        const auto items = static_cast<size_t>(item_start.data()[windows]);
        require(products.size() >= items && probes.size() >= items && inserts.size() >= items, "piuma: item arrays too short");
        require(n_bins >= 2 && n_bins % 2 == 0 && bins.shape(0) == 4 && thread_bins.shape(1) == n_bins &&
                    thread_bins.shape(0) == static_cast<size_t>(threads) && thread_busy.size() == static_cast<size_t>(threads),
                "piuma: timeline arrays have the wrong shape");
        require(streams.size() == STREAMS && phases.size() == PHASES, "piuma: streams or phases have the wrong length");
        require(event_row.size() == event_thread.size() && event_window.size() == event_thread.size() &&
                    event_start.size() == event_thread.size() && event_stop.size() == event_thread.size(),
                "piuma: event arrays differ in length");
        double *row = bins.data();
        instruction_bins = row;
        byte_bins = row + n_bins;
        live_bins = row + 2 * n_bins;
        std::vector<double *> sums{instruction_bins, byte_bins, live_bins};
        for (int64_t x = 0; x < threads; ++x) sums.push_back(thread_bins.data() + x * n_bins);
        timeline = Timeline(static_cast<int64_t>(n_bins), std::move(sums), row + 3 * n_bins);
        for (auto *v : {&instruction_rate, &byte_rate, &network_rate, &started}) v->assign(threads, 0);
        finish.assign(threads, IDLE);
        running.assign(threads, EMPTY);
        next_item.assign(threads, 0);
        idle.reserve(threads);
        pipelines.resize(machine.n_mtc);
        changed.assign(machine.n_mtc, 0);
    }

    // Simulates up to `count` further windows; returns how many are done in all.
    int64_t advance(int64_t count) {
        const workbench::WithoutGil released;
        const auto windows = static_cast<int64_t>(row_start.size());
        if (!counted) count_products();
        const int64_t stop = std::min(windows, window + count);
        for (; window < stop; ++window) run_window();
        if (window == windows && !finished) {
            drain(DMA_WAIT);
            timeline.reach(now);
            finished = true;
        }
        return window;
    }

    int64_t events_kept() const { return kept; }
    double bin_width() const { return timeline.width; }

    double now = 0, instructions = 0, latency = 0, lines = 0, network_bytes = 0, hashing_busy = 0;
    int64_t token_count = 0, event_count = 0, peak_live = 0;

  private:
    double lines_of(double words) const { return 2 * std::ceil(static_cast<double>(c.word) * words / static_cast<double>(c.line)); }

    void add_token(int64_t row, double a, double p, double q, int64_t u, double b_lines, double remote_lines) {
        const double a_lines = lines_of(a), line = static_cast<double>(c.line), word = static_cast<double>(c.word);
        // V3: a claim stores an offset and a column, and a product that merges reads the offset of its slot.
        const double dynamic = version == 1 ? 0 : 1, alloc = version == 3 ? static_cast<double>(u) : 0;
        const double offsets = version == 3 ? p + alloc : 0;
        Token t{row, u, 0, 0, 0, line * remote_lines};
        t.instructions = (version == 1 ? c.c_static : c.c_dyn) + a * c.c_nz + p * (c.c_pp + c.c_merge) + (p + q) * c.c_probe + alloc * c.c_alloc;
        t.latency = t.instructions * c.l_pipe + (a_lines + b_lines + 2 * a) * c.l_dram + remote_lines * c.l_net +
                    (2 * p + q + dynamic + alloc) * c.l_atomic + offsets * c.l_spad;
        t.bytes = line * (a_lines + b_lines) + 2 * word * a;
        double *s = streams.data();
        s[READ_A] += line * a_lines;
        s[READ_POINTERS] += 2 * word * a;
        s[READ_B] += line * b_lines;
        instructions += t.instructions;
        latency += t.latency;
        lines += a_lines + b_lines;
        network_bytes += t.network_bytes;
        ++token_count;
        tokens.push_back(t);
    }

    void cut_tokens() {
        tokens.clear();
        int64_t item = item_start.data()[window];
        for (int64_t i = row_start.data()[window]; i < row_stop.data()[window]; ++i) {
            double a = 0, p = 0, q = 0, b_lines = 0, remote = 0;
            int64_t u = 0;
            for (int64_t e = a_indptr.data()[i]; e < a_indptr.data()[i + 1]; ++e, ++item) {
                const int64_t k = a_indices.data()[e];
                const double pe = static_cast<double>(products.data()[item]);
                if (a > 0 && (version == 1 || p + pe > static_cast<double>(c.token_pp))) {
                    add_token(i, a, p, q, u, b_lines, remote);
                    a = p = q = b_lines = remote = 0;
                    u = 0;
                }
                const double row_lines = lines_of(static_cast<double>(b_indptr.data()[k + 1] - b_indptr.data()[k]));
                a += 1;
                p += pe;
                q += static_cast<double>(probes.data()[item]);
                u += inserts.data()[item];
                b_lines += row_lines;
                if (k % blocks != block) remote += row_lines;
            }
            if (a > 0) add_token(i, a, p, q, u, b_lines, remote);
        }
    }

    // Every thread of a pipeline runs at the same share of its stand-alone speed, so a pipeline keeps one clock that
    // counts stand-alone cycles, and a token ends when that clock has gone on by the token's latency.
    struct Pipeline {
        double clock = 0, speed = 0, next = IDLE;
        double instruction_rate = 0, byte_rate = 0, network_rate = 0;  // sums of what its threads want
    };

    void start_token(int64_t x, int64_t index) {
        const Token &t = tokens[static_cast<size_t>(index)];
        const int64_t g = x / c.threads_per_mtc;
        running[x] = index;
        finish[x] = pipelines[g].clock + t.latency;
        instruction_rate[x] = t.instructions / t.latency;
        byte_rate[x] = t.bytes / t.latency;
        network_rate[x] = t.network_bytes / t.latency;
        started[x] = now;
    }

    void sum_up(int64_t g) {
        Pipeline &mtc = pipelines[g];
        const double clock = mtc.clock;
        mtc = Pipeline{};
        mtc.clock = clock;
        for (int64_t x = g * c.threads_per_mtc; x < (g + 1) * c.threads_per_mtc; ++x) {
            mtc.next = std::min(mtc.next, finish[x]);
            mtc.instruction_rate += instruction_rate[x];
            mtc.byte_rate += byte_rate[x];
            mtc.network_rate += network_rate[x];
        }
    }

    // The threads in `idle` (rising order) fetch work; those that find none stay idle for the rest of the window.
    int64_t fetch() {
        const auto n = static_cast<int64_t>(tokens.size());
        int64_t fetched = 0;
        for (const int64_t x : idle) {
            int64_t &next = version == 1 ? next_item[x] : queue;
            if (next >= n) continue;
            start_token(x, next);
            next += version == 1 ? threads : 1;
            ++fetched;
        }
        for (const int64_t x : idle) changed[x / c.threads_per_mtc] = 1;
        for (int64_t g = 0; g < c.n_mtc; ++g)
            if (changed[g]) sum_up(g);
        std::fill(changed.begin(), changed.end(), 0);
        idle.clear();
        return fetched;
    }

    // Speeds of all pipelines and of the DMA engine under the issue, DRAM and network limits.
    void share_machine() {
        double demand = 0, network = 0;
        for (Pipeline &mtc : pipelines) {
            mtc.speed = mtc.instruction_rate > 1 ? 1 / mtc.instruction_rate : 1;
            demand += mtc.speed * mtc.byte_rate;
            network += mtc.speed * mtc.network_rate;
        }
        dma_rate = dma_left > 0 ? c.dma_bw : 0;
        demand += dma_rate;
        const double memory_scale = demand > c.bw ? c.bw / demand : 1;
        const double network_scale = network * memory_scale > c.net_bw ? c.net_bw / network : memory_scale;
        const double scale = std::min(memory_scale, network_scale);
        for (Pipeline &mtc : pipelines) mtc.speed *= scale;
        dma_rate *= memory_scale;
    }

    double time_to_next_event() const {
        double dt = dma_left > 0 ? dma_left / dma_rate : IDLE;
        for (const Pipeline &mtc : pipelines) dt = std::min(dt, (mtc.next - mtc.clock) / mtc.speed);
        return std::max(dt, 0.0);
    }

    double draining() const { return dma_total > 0 ? draining_live * dma_left / dma_total : 0; }

    // Moves time on by dt with the present speeds.
    void pass(double dt) {
        const double t1 = now + dt, before = live + draining();
        double issued = 0, moved = dma_rate * dt;
        for (Pipeline &mtc : pipelines) {
            issued += mtc.speed * mtc.instruction_rate * dt;
            moved += mtc.speed * mtc.byte_rate * dt;
            mtc.clock += mtc.speed * dt;
        }
        timeline.reach(t1);
        timeline.add(instruction_bins, now, t1, issued);
        timeline.add(byte_bins, now, t1, moved);
        if (dma_left > 0) {
            dma_left -= dma_rate * dt;
            if (dma_left <= 1e-10 * dma_total) end_dma(t1);
        }
        timeline.level(live_bins, now, t1, before, live + draining());
        now = t1;
    }

    void end_dma(double t) {
        dma_left = 0;
        draining_live = 0;
        window_times.data()[dma_window * W_COLUMNS + W_DMA_DONE] = t;
    }

    void finish_token(int64_t x) {
        const Token &t = tokens[static_cast<size_t>(running[x])];
        running[x] = EMPTY;
        finish[x] = IDLE;
        instruction_rate[x] = byte_rate[x] = network_rate[x] = 0;
        live += static_cast<double>(t.inserts);
        thread_busy.data()[x] += now - started[x];
        hashing_busy += now - started[x];
        timeline.add(thread_bins.data() + x * static_cast<int64_t>(thread_bins.shape(1)), started[x], now, now - started[x]);
        ++event_count;
        if (kept == static_cast<int64_t>(event_thread.size())) return;
        event_thread.data()[kept] = block * threads + x;
        event_row.data()[kept] = first_row + t.row;
        event_window.data()[kept] = window;
        event_start.data()[kept] = started[x];
        event_stop.data()[kept] = now;
        ++kept;
    }

    // Ends every token whose time has come; tokens that end together up to rounding end together.
    int64_t finish_tokens() {
        int64_t ended = 0;
        for (int64_t g = 0; g < c.n_mtc; ++g) {
            const double due = pipelines[g].clock * (1 + 1e-12) + 1e-9;
            if (pipelines[g].next > due) continue;
            for (int64_t x = g * c.threads_per_mtc; x < (g + 1) * c.threads_per_mtc; ++x) {
                if (finish[x] > due) continue;
                finish_token(x);
                idle.push_back(x);
                ++ended;
            }
        }
        return ended;
    }

    void hash_window() {
        queue = 0;
        idle.clear();
        for (Pipeline &mtc : pipelines) mtc.clock = 0;
        for (int64_t x = 0; x < threads; ++x) {
            next_item[x] = x;
            idle.push_back(x);
        }
        workbench::Pace pace;
        for (int64_t active = fetch(); active > 0;) {
            share_machine();
            pass(time_to_next_event());
            const int64_t ended = finish_tokens();
            pace.step(c.n_mtc + 64);
            if (ended > 0) active += fetch() - ended;
        }
    }

    void drain(Phase phase) {
        if (dma_left <= 0) return;
        dma_rate = std::min(c.dma_bw, c.bw);
        phases.data()[phase] += dma_left / dma_rate;
        pass(dma_left / dma_rate);
        if (dma_left > 0) end_dma(now);
    }

    // Work of all threads together that no token describes: spread evenly over the time it takes; each thread is busy
    // for `each` cycles of it.
    void shared_work(Phase phase, double work, double thread_latency, double bytes, double duration, double each, double live_after) {
        const double t1 = now + duration;
        timeline.reach(t1);
        timeline.add(instruction_bins, now, t1, work);
        timeline.add(byte_bins, now, t1, bytes);
        timeline.level(live_bins, now, t1, live, live_after);
        for (int64_t x = 0; x < threads; ++x) {
            thread_busy.data()[x] += each;
            timeline.add(thread_bins.data() + x * static_cast<int64_t>(thread_bins.shape(1)), now, t1, each);
        }
        instructions += work;
        latency += thread_latency;
        phases.data()[phase] += duration;
        now = t1;
    }

    // Gustavson's first pass, from which the windows are cut: the column of every entry of A, streamed in lines, and
    // the two pointers of its row of B. All threads share it evenly.
    void count_products() {
        counted = true;
        const double entries = static_cast<double>(a_indptr.data()[a_indptr.size() - 1]), line = static_cast<double>(c.line);
        const double column_lines = std::ceil(static_cast<double>(c.word) * entries / line), pointers = 2 * entries;
        const double columns = line * column_lines, bytes = columns + static_cast<double>(c.word) * pointers;
        const double work = entries * c.c_nz, thread_latency = work * c.l_pipe + (column_lines + pointers) * c.l_dram;
        const double duration = at_best(work, thread_latency, bytes);
        shared_work(COUNTING, work, thread_latency, bytes, duration, duration, 0);
        streams.data()[READ_A] += columns;
        streams.data()[READ_POINTERS] += bytes - columns;
    }

    void run_window() {
        double *times = window_times.data() + window * W_COLUMNS;
        times[W_START] = now;
        cut_tokens();
        hash_window();
        times[W_HASHED] = now;
        phases.data()[HASHING] += now - times[W_START];
        double u = 0;
        for (const Token &t : tokens) u += static_cast<double>(t.inserts);
        peak_live = std::max(peak_live, static_cast<int64_t>(u));
        const double word = static_cast<double>(c.word);
        const double bytes = 2 * word * u + word * static_cast<double>(row_stop.data()[window] - row_start.data()[window]);
        streams.data()[WRITE_C] += bytes;
        if (version == 3) {
            hand_to_dma(bytes, u);
        } else {
            write_back(bytes, u);
        }
        live = 0;
        times[W_DONE] = now;
    }

    double at_best(double work, double thread_latency, double bytes) const {
        return std::max({work / static_cast<double>(c.n_mtc), thread_latency / static_cast<double>(threads), bytes / c.bw});
    }

    void write_back(double bytes, double u) {
        const double work = slots() * c.c_scan + u * c.c_wb;
        const double thread_latency = work * c.l_pipe + slots() * c.l_spad + 2 * u * c.l_store;
        const double ideal = at_best(work, thread_latency, bytes);
        shared_work(WRITE_BACK, work, thread_latency, bytes, ideal / c.wb_eff, ideal, 0);
    }

    void hand_to_dma(double bytes, double u) {
        drain(DMA_WAIT);
        // The threads write the descriptors together, one instruction per cycle.
        shared_work(WRITE_BACK, c.c_dma, c.c_dma, 0, c.c_dma, c.c_dma / static_cast<double>(threads), live);
        // Before the engine gathers it fills the table with empty slots. The threads wait: there is room for one table.
        shared_work(CLEARING, 0, 0, 0, 2 * static_cast<double>(c.word) * slots() / c.fill_bw, 0, live);
        dma_left = dma_total = bytes;
        draining_live = u;
        dma_window = window;
        window_times.data()[window * W_COLUMNS + W_DMA_START] = now;
        if (bytes <= 0) end_dma(now);
    }

    double slots() const { return std::ldexp(1.0, static_cast<int>(c.log2_slots)); }

    Machine c;
    int version;
    int64_t block, blocks, first_row, threads;
    In a_indptr, a_indices, b_indptr, row_start, row_stop, item_start, products, probes, inserts;
    Matrix<double> thread_bins, bins;
    OutReal thread_busy, streams, phases;
    Matrix<double> window_times;
    Out event_thread, event_row, event_window;
    OutReal event_start, event_stop;
    Timeline timeline;
    double *instruction_bins = nullptr, *byte_bins = nullptr, *live_bins = nullptr;
    std::vector<Token> tokens;
    std::vector<Pipeline> pipelines;
    std::vector<char> changed;
    std::vector<double> finish, instruction_rate, byte_rate, network_rate, started;
    std::vector<int64_t> running, next_item, idle;
    int64_t window = 0, queue = 0, kept = 0, dma_window = 0;
    double live = 0, dma_left = 0, dma_total = 0, dma_rate = 0, draining_live = 0;
    bool counted = false, finished = false;
};

}  // namespace

WORKBENCH_BIND(bind_piuma) {
    nb::class_<Machine> machine(m, "PiumaMachine");
    machine.def(nb::init<>());
#define FIELD(name) machine.def_rw(#name, &Machine::name)
    FIELD(n_mtc), FIELD(threads_per_mtc), FIELD(token_pp), FIELD(log2_slots), FIELD(line), FIELD(word);
    FIELD(l_pipe), FIELD(l_dram), FIELD(l_spad), FIELD(l_atomic), FIELD(l_store), FIELD(bw), FIELD(dma_bw), FIELD(wb_eff);
    FIELD(c_nz), FIELD(c_pp), FIELD(c_probe), FIELD(c_merge), FIELD(c_alloc), FIELD(c_scan), FIELD(c_wb), FIELD(c_static);
    FIELD(c_dyn), FIELD(c_dma), FIELD(fill_bw), FIELD(l_net), FIELD(net_bw);
#undef FIELD
    nb::class_<Simulation>(m, "PiumaSimulation")
        .def(nb::init<Machine, int, int64_t, int64_t, int64_t, In, In, In, In, In, In, In, In, In, Matrix<double>, Matrix<double>,
                      OutReal, OutReal, OutReal, Matrix<double>, Out, Out, Out, OutReal, OutReal>())
        .def("advance", &Simulation::advance)
        .def_prop_ro("events_kept", &Simulation::events_kept)
        .def_prop_ro("bin_width", &Simulation::bin_width)
        .def_ro("cycles", &Simulation::now)
        .def_ro("instructions", &Simulation::instructions)
        .def_ro("latency", &Simulation::latency)
        .def_ro("lines", &Simulation::lines)
        .def_ro("network_bytes", &Simulation::network_bytes)
        .def_ro("hashing_busy", &Simulation::hashing_busy)
        .def_ro("tokens", &Simulation::token_count)
        .def_ro("event_count", &Simulation::event_count)
        .def_ro("peak_live", &Simulation::peak_live);
}
