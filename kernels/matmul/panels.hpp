// A product whose right operand is copied panel of columns by panel of columns, each copy read by all rows.
#pragma once
#include <algorithm>
#include <cstdint>
#include <memory>

#include "thread_pool.hpp"

namespace workbench {
namespace {  // one copy per source file and instruction set

constexpr std::int64_t tasks_of_a_thread = 8, least_rows_of_a_task = 8;

// How many threads are worth waking: one for each `work_of_a_thread`, in any unit.
inline int threads_worth_waking(int threads, double work, double work_of_a_thread) {
    const double most = threads > 0 ? threads : get_num_threads();
    return static_cast<int>(std::clamp(work / work_of_a_thread, 1.0, most));
}

// copy(panel, cells) fills `cells` cells, aligned to 64 bytes; rows(panel, begin, end, cells) computes some rows with them.
// Tasks are small, since a thread comes late to the first ones; they rise, so that a thread keeps its copy of a panel.
template <class Cell, class Copy, class Rows>
void for_panels(std::int64_t panels, std::int64_t row_count, std::int64_t cells, int workers, Copy copy, Rows rows) {
    struct Held {
        std::unique_ptr<Cell[]> room;
        Cell *cells = nullptr;
        std::int64_t panel = -1;
    };
    if (panels == 0) return;
    const std::int64_t wanted = workers > 1 ? (tasks_of_a_thread * workers + panels - 1) / panels : 1;
    const std::int64_t parts = std::clamp<std::int64_t>(wanted, 1, std::max<std::int64_t>(1, row_count / least_rows_of_a_task));
    const auto copies = std::make_unique<Held[]>(workers);
    parallel_for(panels * parts, workers, [&](std::int64_t task, int worker) {
        const std::int64_t panel = task / parts, part = task % parts;
        Held &held = copies[worker];
        if (!held.room) {
            held.room.reset(new Cell[cells + 64]);
            held.cells = held.room.get() + (64 - reinterpret_cast<std::uintptr_t>(held.room.get()) % 64) % 64 / sizeof(Cell);
        }
        if (held.panel != panel) copy(panel, held.cells);
        held.panel = panel;
        rows(panel, row_count * part / parts, row_count * (part + 1) / parts, held.cells);
    });
}

}  // namespace
}  // namespace workbench
