// A small pool whose threads sleep at once when idle: spinning threads fight torch's OpenMP runtime.
#pragma once
#include <cstdint>
#include <functional>

namespace workbench {

void set_num_threads(int n);
int get_num_threads();

// Run body(task, worker) for every task in [0, tasks), worker in [0, threads). threads <= 0 means the global setting.
// Tasks are handed out one by one in rising order; the caller works too, and alone if no thread can be started.
// A task that was handed out is run. What a body throws first is rethrown here, after every running task has ended;
// further tasks are not begun. Between tasks the call is asked whether it should stop (python_call.hpp).
// Calls from inside a body run serially. Different Python threads may call at once: the later one waits.
void parallel_for(std::int64_t tasks, int threads, const std::function<void(std::int64_t task, int worker)> &body);

}  // namespace workbench
