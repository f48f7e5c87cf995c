// A small pool: the caller and threads - 1 workers take pieces of one job after another.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace hiddennet::runtime {

class Pool {
 public:
  explicit Pool(int threads);
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  int threads() const { return threads_; }
  // f(task, thread) for each task in [0, tasks), which must not throw; returns when all are done. One caller at a time.
  void run(int64_t tasks, const std::function<void(int64_t, int)>& f);

 private:
  void work(int thread);
  void take(int thread);

  const int threads_;
  const int process_;
  std::vector<std::thread> workers_;
  const std::function<void(int64_t, int)>* f_ = nullptr;
  int64_t tasks_ = 0;
  std::atomic<int64_t> next_{0};
  std::atomic<int> working_{0};
  std::atomic<uint64_t> job_{0};
  std::atomic<bool> ends_{false};
  std::mutex mutex_;
  std::condition_variable begun_;
};

// What HIDDENNET_THREADS says, else the cores that this process may run on.
int default_threads();

}  // namespace hiddennet::runtime
