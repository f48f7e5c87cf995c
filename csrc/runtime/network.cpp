#include "network.h"

#include <unistd.h>

#include <cstdlib>
#include <cstring>

#include "../base/amx.h"
#include "error.h"

namespace hiddennet::runtime {
namespace {

constexpr size_t kVariants = 3;
constexpr int64_t kMostBatch = int64_t(1) << 24;
constexpr int kMostThreads = 1024;

Plans wished_plans() {
  const char* wish = std::getenv("HIDDENNET_PLANS");
  if (wish == nullptr || *wish == '\0' || std::strcmp(wish, "auto") == 0) return Plans::automatic;
  if (std::strcmp(wish, "measure") == 0) return Plans::measured;
  if (std::strcmp(wish, "fixed") != 0) fail("expected HIDDENNET_PLANS to be auto, measure or fixed, got ", wish);
  return Plans::fixed;
}

int checked_threads(int threads) {
  if (threads < 0 || threads > kMostThreads) fail("expected 1 to ", kMostThreads, " threads, got ", threads);
  return threads == 0 ? default_threads() : threads;
}

}  // namespace

Network::Network(File file, int threads, Bf16 bf16)
    : file_(std::move(file)),
      weights_(file_),
      graph_(file_, weights_),
      options_{bf16 == Bf16::on || (bf16 == Bf16::automatic && hn::matrix_tiles()), wished_plans()},
      pool_(checked_threads(threads)),
      state_(new State{int(getpid())}) {}

Network::~Network() {
  State* held = state_;
  if (!held->mutex.try_lock()) return;  // by a thread that a fork has left behind
  held->mutex.unlock();
  delete held;
}

Network::State& Network::state() {
  State* found = state_;
  const int process = int(getpid());
  if (found->process == process) return *found;
  std::unique_ptr<State> fresh(new State{process});
  if (found->mutex.try_lock()) {  // nothing was under way
    fresh->held.swap(found->held);
    found->mutex.unlock();
  }
  return state_.compare_exchange_strong(found, fresh.get()) ? *fresh.release() : *found;
}

Variant& Network::variant(State& state, int64_t batch, Layout layout) {
  auto& held = state.held;
  for (auto it = held.begin(); it != held.end(); ++it) {
    if (it->batch == batch && it->layout == layout) {
      held.splice(held.begin(), held, it);
      return *held.front().variant;
    }
  }
  while (held.size() >= kVariants) held.pop_back();
  held.push_front({batch, layout, std::make_unique<Variant>(graph_, batch, layout, options_, pool_)});
  return *held.front().variant;
}

void Network::run(const float* x, int64_t batch, Layout layout, float* y) {
  if (layout != Layout::nchw_f32 && layout != Layout::nhwc_f32) fail("expected the layout nchw or nhwc, got another");
  if (batch < 0 || batch > kMostBatch) fail("expected a batch of 0 to ", kMostBatch, ", got ", batch);
  if (batch == 0) return;
  State& state = this->state();
  const std::lock_guard<std::mutex> lock(state.mutex);
  variant(state, batch, layout).run(x, y);
}

std::vector<LayerReport> Network::layers() {
  State& state = this->state();
  const std::lock_guard<std::mutex> lock(state.mutex);
  const auto& held = state.held;
  std::vector<LayerReport> found;
  for (size_t n = 0; n < graph_.nodes().size(); ++n) {
    const Node& node = graph_.nodes()[n];
    if (node.op != Op::conv) continue;
    int64_t weights = 1;
    for (const int64_t size : node.weight) weights *= size;
    const ConvPlan* plan = held.empty() ? nullptr : held.front().variant->plan(n);
    found.push_back({node.name, plan == nullptr ? "" : plan->name(), node.weight, graph_.kept(node), weights,
                     plan == nullptr ? 0 : plan->weight_bytes()});
  }
  return found;
}

}  // namespace hiddennet::runtime
