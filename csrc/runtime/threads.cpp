#include "threads.h"

#include <sched.h>
#include <unistd.h>

#include <cstdlib>

#include "error.h"

namespace hiddennet::runtime {
namespace {

constexpr int kSpins = 4000;  // some 20 us: a network's steps follow each other faster than a thread is woken

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

}  // namespace

Pool::Pool(int threads) : threads_(threads), process_(int(getpid())) {
  for (int i = 1; i < threads; ++i) workers_.emplace_back([this, i] { work(i); });
}

Pool::~Pool() {
  if (int(getpid()) != process_) {  // after a fork the workers are not there
    for (std::thread& worker : workers_) worker.detach();
    return;
  }
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    ends_ = true;
    ++job_;
  }
  begun_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void Pool::take(int thread) {
  for (int64_t task = next_++; task < tasks_; task = next_++) (*f_)(task, thread);
}

void Pool::work(int thread) {
  uint64_t seen = 0;
  while (true) {
    for (int i = 0; i < kSpins && job_ == seen; ++i) pause();
    if (job_ == seen) {
      std::unique_lock<std::mutex> lock(mutex_);
      begun_.wait(lock, [&] { return job_ != seen; });
    }
    seen = job_;
    if (ends_) return;
    take(thread);
    --working_;
  }
}

void Pool::run(int64_t tasks, const std::function<void(int64_t, int)>& f) {
  if (workers_.empty() || tasks <= 1 || int(getpid()) != process_) {
    for (int64_t task = 0; task < tasks; ++task) f(task, 0);
    return;
  }
  f_ = &f;
  tasks_ = tasks;
  next_ = 0;
  working_ = int(workers_.size());
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    ++job_;
  }
  begun_.notify_all();
  take(0);
  for (int i = 0; working_ != 0; ++i) {
    if (i < kSpins) {
      pause();
    } else {
      std::this_thread::yield();
    }
  }
}

int default_threads() {
  if (const char* wish = std::getenv("HIDDENNET_THREADS"); wish != nullptr && *wish != '\0') {
    char* end = nullptr;
    const long found = std::strtol(wish, &end, 10);
    if (*end != '\0' || found < 1 || found > 1024) {
      fail("expected HIDDENNET_THREADS to be a number of threads from 1 to 1024, got ", wish);
    }
    return int(found);
  }
  cpu_set_t cores;
  const int found = sched_getaffinity(0, sizeof cores, &cores) == 0 ? CPU_COUNT(&cores) : 1;
  return found < 1 ? 1 : found;
}

}  // namespace hiddennet::runtime
