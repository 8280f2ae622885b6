#include "thread_pool.hpp"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "python_call.hpp"

namespace workbench {
namespace {

int usable_cpus() {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
    return std::max(1u, std::thread::hardware_concurrency());
}

std::atomic<int> num_threads{0};
constexpr std::chrono::milliseconds patience{20};  // how long a wait may go on without a look at the call
constexpr std::chrono::microseconds last_task{50};  // how long the caller looks for its end before it sleeps
thread_local bool inside_body = false;

// From here on calls of this thread run serially: those of a body, and those of a signal handler while it waits.
class Inside {
  public:
    Inside() { inside_body = true; }
    ~Inside() { inside_body = before_; }

  private:
    const bool before_ = inside_body;
};

// Let a thread run anywhere but on this CPU. A thread that wakes where it last ran, below the caller, would come only
// when the caller sleeps: the system moves it at leisure.
void keep_off(int cpu, pid_t thread) {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) != 0 || CPU_COUNT(&set) < 2) return;
    CPU_CLR(cpu, &set);
    sched_setaffinity(thread, sizeof set, &set);
}

struct Helper {
    pid_t thread = 0;
    int cpu = -1;  // where it last ran
};

struct Pool {
    std::timed_mutex busy;  // one parallel_for at a time
    std::mutex lock;
    std::condition_variable wake, done;
    const std::function<void(std::int64_t, int)> *body = nullptr;
    Call *call = nullptr;
    std::atomic<std::int64_t> next{0};
    std::int64_t tasks = 0;
    std::uint64_t round = 0;
    int helpers = 0;  // threads that live, beside the callers
    std::vector<Helper> places;
    int wanted = 0;
    std::atomic<int> running{0};  // helpers that began this round and have not ended
    std::exception_ptr error;  // the first of the round
    const pid_t owner = getpid();

    // No further task is begun, and those that run are told.
    void fail(std::exception_ptr found) {
        std::scoped_lock guard(lock);
        if (!error) error = std::move(found);
        next = tasks;
        if (call != nullptr) call->failed = true;  // from here on others may throw, too
    }

    void work(int worker) {
        try {
            for (;;) {
                check_stop();
                const std::int64_t task = next.fetch_add(1, std::memory_order_relaxed);
                if (task >= tasks) return;
                (*body)(task, worker);
            }
        } catch (...) {
            fail(std::current_exception());
        }
    }

    void live(int worker, std::uint64_t seen) {
        const Inside inside;
        std::unique_lock guard(lock);
        places[worker - 1] = {gettid(), sched_getcpu()};
        for (;;) {
            wake.wait(guard, [&] { return round != seen; });
            seen = round;
            if (worker > wanted) continue;
            ++running;
            guard.unlock();
            here().call = call;
            work(worker);
            here().call = nullptr;
            const int cpu = sched_getcpu();
            guard.lock();
            places[worker - 1].cpu = cpu;
            if (--running == 0) done.notify_one();
        }
    }

    // Have so many helpers, or as many as the system lets start; needs the lock.
    void start_helpers(int count) {
        try {
            places.resize(std::max(places.size(), static_cast<std::size_t>(count)));
            for (; helpers < count; ++helpers) std::thread([this, n = helpers + 1, seen = round] { live(n, seen); }).detach();
        } catch (const std::system_error &) {  // too many threads, or no memory for a stack: the next call tries again
        } catch (const std::bad_alloc &) {
        }
    }

    void run(std::int64_t n, int threads, const std::function<void(std::int64_t, int)> &f) {
        while (!busy.try_lock_for(patience)) check_stop();
        const std::scoped_lock one_call(std::adopt_lock, busy);
        const Inside inside;
        {
            std::scoped_lock guard(lock);
            start_helpers(threads - 1);
            body = &f;
            call = here().call;
            tasks = n;
            next = 0;
            wanted = std::min(threads - 1, helpers);
            ++round;
            const int cpu = sched_getcpu();
            for (Helper &helper : places)
                if (helper.cpu == cpu) keep_off(cpu, helper.thread);
        }
        wake.notify_all();
        work(0);
        std::unique_lock guard(lock);
        wanted = 0;  // a helper that wakes only now finds nothing to do, and nobody waits for it
        if (running != 0) {  // a helper ends its last task: to sleep and be woken takes longer than most of them
            guard.unlock();
            for (const auto end = std::chrono::steady_clock::now() + last_task; running != 0 && std::chrono::steady_clock::now() < end;) {}
            guard.lock();
        }
        while (!done.wait_for(guard, patience, [&] { return running == 0; })) {
            guard.unlock();
            try {
                check_stop();
            } catch (...) {
                fail(std::current_exception());
            }
            guard.lock();
        }
        if (const std::exception_ptr found = std::exchange(error, nullptr)) {
            guard.unlock();
            std::rethrow_exception(found);
        }
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
        in_runs(0, tasks, 1, [&](std::int64_t task, std::int64_t) { body(task, 0); });
        return;
    }
    pool().run(tasks, threads, body);
}

}  // namespace workbench
