#include "thread_pool.hpp"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

namespace workbench {
namespace {

int usable_cpus() {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
    return std::max(1u, std::thread::hardware_concurrency());
}

std::atomic<int> num_threads{0};
thread_local bool inside_body = false;

struct Pool {
    std::mutex busy;  // one parallel_for at a time
    std::mutex lock;
    std::condition_variable wake, done;
    std::vector<std::thread> workers;
    const std::function<void(std::int64_t, int)> *body = nullptr;
    std::atomic<std::int64_t> next{0};
    std::int64_t tasks = 0;
    std::uint64_t round = 0;
    int wanted = 0, running = 0;
    const pid_t owner = getpid();

    void work(int worker) {
        inside_body = true;
        for (std::int64_t t; (t = next.fetch_add(1, std::memory_order_relaxed)) < tasks;) (*body)(t, worker);
        inside_body = false;
    }

    void live(int worker) {
        std::uint64_t seen = 0;
        std::unique_lock guard(lock);
        for (;;) {
            wake.wait(guard, [&] { return round != seen; });
            seen = round;
            if (worker >= wanted) continue;
            guard.unlock();
            work(worker);
            guard.lock();
            if (--running == 0) done.notify_one();
        }
    }

    void run(std::int64_t n, int threads, const std::function<void(std::int64_t, int)> &f) {
        std::scoped_lock one_call(busy);
        {
            std::scoped_lock guard(lock);
            body = &f;
            tasks = n;
            next = 0;
            wanted = threads;
            running = threads - 1;
            ++round;
            while (static_cast<int>(workers.size()) < threads - 1) {
                const int worker = static_cast<int>(workers.size()) + 1;
                workers.emplace_back([this, worker] { live(worker); });
                workers.back().detach();
            }
        }
        wake.notify_all();
        work(0);
        std::unique_lock guard(lock);
        done.wait(guard, [&] { return running == 0; });
    }
};

// Never destroyed: its threads may outlive main. A forked child has no threads, so it starts its own pool.
Pool &pool() {
    static std::mutex guard;
    static Pool *instance = nullptr;
    std::scoped_lock hold(guard);
    if (instance == nullptr || instance->owner != getpid()) instance = new Pool;
    return *instance;
}

}  // namespace

void set_num_threads(int n) { num_threads = n; }

int get_num_threads() {
    if (num_threads == 0) num_threads = usable_cpus();
    return num_threads;
}

void parallel_for(std::int64_t tasks, int threads, const std::function<void(std::int64_t, int)> &body) {
    if (threads <= 0) threads = get_num_threads();
    threads = static_cast<int>(std::min<std::int64_t>(threads, tasks));
    if (threads <= 1 || inside_body) {
        for (std::int64_t t = 0; t < tasks; ++t) body(t, 0);
        return;
    }
    pool().run(tasks, threads, body);
}

}  // namespace workbench
