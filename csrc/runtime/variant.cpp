#include "variant.h"

#include <algorithm>
#include <cstring>
#include <memory>

#include "candidates.h"
#include "error.h"

namespace hiddennet::runtime {
namespace {

constexpr size_t kMostMemory = size_t(1) << 40;

Step convert_step(Layout from, Layout to, int64_t batch, const Shape& s, const float* const* x, const void* data,
                  void* y) {
  const Conversion conversion(from, to, batch, s.channels, s.height, s.width);
  return {conversion.tasks(), [=](int64_t task, int) { conversion.run(x == nullptr ? data : *x, y, task); }};
}

}  // namespace

// First what is to be done, in order, on buffers by number; then their places; then the steps with addresses.
class Variant::Builder {
 public:
  Builder(Variant& made, const Graph& graph, int64_t batch, Layout layout, const Options& options)
      : made_(made), graph_(graph), nodes_(graph.nodes()), batch_(batch), layout_(layout), options_(options) {}

  void build() {
    size_t most = 0;
    for (const Node& node : nodes_) {
      if (node.op == Op::conv) most = std::max(most, size_t(conv_shape(graph_, node, 1).weights()));
    }
    weight_.reserve(most + 8);
    choose_options();
    for (size_t n = 1; n < nodes_.size(); ++n) plan_node(n);
    const int last = need(graph_.output(), layout_of(graph_.output()));
    todo_.push_back({-1, layout_of(graph_.output()), layout_, {last}, -1});
    group();
    lay_out();
    for (size_t i = 0; i < todo_.size();) {
      const size_t first = i;
      while (i < todo_.size() && group_[i] == group_[first]) ++i;
      made_.steps_.push_back(by_image(todo_[first]) ? images_step(first, i) : step_of(todo_[first]));
    }
  }

 private:
  struct Todo {
    int node;         // to compute; -1: a conversion
    Layout from, to;  // of a conversion
    std::vector<int> reads;
    int write;       // -1: the caller's memory, as in reads
    int value = -1;  // the node whose value a conversion is of
  };

  Layout layout_of(int n) const { return chosen_[size_t(n)].output; }

  // Of all convolutions, as options_.plans has them; empty where one was not measured and may not be now.
  std::vector<std::vector<Option>> measured_convs() {
    std::vector<std::vector<Option>> all;
    for (const Node& node : nodes_) {
      if (node.op != Op::conv) continue;
      std::vector<Option> found = known_options(graph_, node, batch_, options_.bf16, made_.pool_);
      if (found.empty()) {
        if (options_.plans != Plans::measured) return {};
        found = measured_options(graph_, node, batch_, options_.bf16, made_.pool_, weight_);
      }
      all.push_back(std::move(found));
    }
    return all;
  }

  void choose_options() {
    std::vector<std::vector<Option>> convs, all;
    if (options_.plans != Plans::fixed) convs = measured_convs();
    const bool estimates = convs.empty();
    size_t measured = 0;
    const int threads = estimates ? 1 : made_.pool_.threads();
    for (const Node& node : nodes_) {
      std::vector<Option> found;
      if (node.op == Op::input) {
        found.push_back({"", layout_, layout_, 0.0});
      } else if (node.op == Op::conv && estimates) {
        found = estimated_options(graph_, node, batch_, options_.bf16);
      } else if (node.op == Op::conv) {
        found = std::move(convs[measured++]);
      } else {
        for (const Layout layout : layouts_of(graph_, node, batch_, options_.bf16)) {
          found.push_back({"", layout, layout, seconds_of(graph_, node, batch_, layout, threads)});
        }
      }
      all.push_back(std::move(found));
    }
    const auto best = choose(graph_, batch_, all, layout_, threads);
    for (size_t n = 0; n < nodes_.size(); ++n) chosen_.push_back(all[n][size_t(best[n])]);
    for (size_t n = 0; n < nodes_.size(); ++n) {
      made_.plans_.push_back(nodes_[n].op == Op::conv ? plan_of(n) : nullptr);
    }
  }

  bool by_image(const Todo& todo) const {
    if (todo.node < 0 || nodes_[size_t(todo.node)].op != Op::conv) return false;
    return is_by_image(todo.from, todo.to, batch_, made_.pool_.threads());
  }

  std::unique_ptr<ConvPlan> plan_of(size_t n) {
    const Option& option = chosen_[n];
    const bool one = is_by_image(option.input, option.output, batch_, made_.pool_.threads());
    for (auto& plan : PreparedConv(graph_, nodes_[n], one ? 1 : batch_, weight_).plans(options_.bf16, option.plan)) {
      if (plan->name() == option.plan && plan->input() == option.input && plan->output() == option.output) {
        return std::move(plan);
      }
    }
    fail("expected the plan ", option.plan, " for ", nodes_[n].name,
         ", as measured before, got none; remove "
         "hiddennet/runtime-plans.tsv from the user's cache");
  }

  int add_buffer(int node, Layout layout) {
    const size_t bytes = size_t(batch_ * nodes_[size_t(node)].shape.size()) * element_bytes(layout) + kSlack;
    lives_.push_back({bytes, -1, -1, 0});
    fixed_.push_back(nullptr);
    return place_[{node, layout}] = int(lives_.size()) - 1;
  }

  // The number of the buffer that has this value in that layout; converts where it is not there yet.
  int need(int node, Layout layout) {
    const auto found = place_.find({node, layout});
    if (found != place_.end()) return found->second;
    if (node == 0) {
      const int made = add_buffer(0, layout);
      todo_.push_back({-1, layout_, layout, {-1}, made, 0});
      return made;
    }
    const int from = place_.at({node, layout_of(node)}), made = add_buffer(node, layout);
    todo_.push_back({-1, layout_of(node), layout, {from}, made, node});
    return made;
  }

  void plan_node(size_t n) {
    const Node& node = nodes_[n];
    if (node.op == Op::constant) return add_constant(int(n));
    const Option& option = chosen_[n];
    std::vector<int> reads;
    for (size_t i = 0; i < node.inputs.size(); ++i) reads.push_back(need(node.inputs[i], read_layout(node, i, option)));
    if (node.op == Op::reshape) {
      place_[{int(n), option.output}] = reads[0];
      return;
    }
    const int write = add_buffer(int(n), option.output);
    todo_.push_back({int(n), option.input, option.output, std::move(reads), write});
  }

  void add_constant(int n) {
    const Node& node = nodes_[size_t(n)];
    const int made = add_buffer(n, layout_of(n));
    made_.constants_.push_back(std::make_unique<Block>(lives_.back().bytes));
    lives_.back().bytes = 0;
    fixed_.back() = made_.constants_.back()->data();
    std::vector<float> all;
    for (int64_t i = 0; i < batch_; ++i) all.insert(all.end(), node.numbers.begin(), node.numbers.end());
    const Step step =
        convert_step(Layout::nchw_f32, layout_of(n), batch_, node.shape, nullptr, all.data(), fixed_[size_t(made)]);
    for (int64_t task = 0; task < step.tasks; ++task) step.run(task, 0);
  }

  // Those that run image by image and follow one another are one step.
  void group() {
    int last = -1;
    for (size_t i = 0; i < todo_.size(); ++i) {
      if (i == 0 || !by_image(todo_[i - 1]) || !by_image(todo_[i])) ++last;
      group_.push_back(last);
    }
  }

  // From the first use of each buffer to the last, counted by `time` of what is to be done.
  template <class F>
  std::vector<Life> lives_by(const F& time) const {
    std::vector<Life> found = lives_;
    for (size_t i = 0; i < todo_.size(); ++i) {
      const auto use = [&](int buffer) {
        if (buffer < 0) return;
        Life& life = found[size_t(buffer)];
        if (life.first < 0) life.first = time(i);
        life.last = time(i);
      };
      for (const int buffer : todo_[i].reads) use(buffer);
      use(todo_[i].write);
    }
    return found;
  }

  // What only one step of images writes and reads has a place of one image in each thread's memory.
  size_t lay_out_images() {
    std::vector<int> written(lives_.size(), -1);
    for (size_t i = 0; i < todo_.size(); ++i) {
      if (by_image(todo_[i])) written[size_t(todo_[i].write)] = group_[i];
    }
    std::vector<Life> images = lives_by([](size_t i) { return int(i); });
    for (size_t b = 0; b < lives_.size(); ++b) {
      in_thread_.push_back(written[b] >= 0 && written[b] == group_[size_t(images[b].last)]);
      images[b].bytes = in_thread_[b] ? (lives_[b].bytes - kSlack) / size_t(batch_) + kSlack : 0;
      if (in_thread_[b]) lives_[b].bytes = 0;
    }
    const size_t whole = place(images);
    for (size_t b = 0; b < lives_.size(); ++b) thread_offset_.push_back(images[b].offset);
    return whole;
  }

  void lay_out() {
    const size_t image_bytes = lay_out_images();
    lives_ = lives_by([this](size_t i) { return group_[i]; });
    double sum = 0.0;
    for (const Life& life : lives_) sum += double(life.bytes);
    if (sum > double(kMostMemory))
      fail("expected activations of less than 2^40 bytes, got ", sum, "; take a smaller batch");
    made_.memory_ = std::make_unique<Block>(place(lives_));
    for (const auto& plan : made_.plans_) {
      if (plan != nullptr) made_.workspace_each_ = std::max(made_.workspace_each_, plan->workspace_bytes());
    }
    images_at_ = (made_.workspace_each_ + kAlignment - 1) / kAlignment * kAlignment;
    made_.workspace_each_ = images_at_ + image_bytes;
    made_.workspace_ = std::make_unique<Block>(made_.workspace_each_ * size_t(made_.pool_.threads()));
  }

  void* address(int buffer) const {
    if (fixed_[size_t(buffer)] != nullptr) return fixed_[size_t(buffer)];
    return made_.memory_->data() + lives_[size_t(buffer)].offset;
  }

  Step step_of(const Todo& todo) {
    if (todo.node < 0 && todo.write < 0) {
      const Conversion conversion(todo.from, todo.to, batch_, shape(graph_.output()).channels,
                                  shape(graph_.output()).height, shape(graph_.output()).width);
      const void* data = address(todo.reads[0]);
      float* const* y = &made_.y_;
      return {conversion.tasks(), [=](int64_t task, int) { conversion.run(data, *y, task); }};
    }
    if (todo.node < 0) {
      const bool outside = todo.reads[0] < 0;
      return convert_step(todo.from, todo.to, batch_, shape(todo.value), outside ? &made_.x_ : nullptr,
                          outside ? nullptr : address(todo.reads[0]), address(todo.write));
    }
    const Node& node = nodes_[size_t(todo.node)];
    if (node.op != Op::conv) {
      Operands operands{todo.from, batch_, {}, {}, address(todo.write)};
      for (size_t i = 0; i < node.inputs.size(); ++i) {
        operands.inputs.push_back(address(todo.reads[i]));
        operands.shapes.push_back(shape(node.inputs[i]));
      }
      return make_step(node, operands);
    }
    const ConvPlan* plan = made_.plans_[size_t(todo.node)].get();
    const void *x = address(todo.reads[0]), *residual = node.residual ? address(todo.reads.back()) : nullptr;
    void* y = address(todo.write);
    uint8_t* workspace = made_.workspace_->data();
    const size_t each = made_.workspace_each_;
    return {plan->tasks(),
            [=](int64_t task, int thread) { plan->run(x, residual, y, workspace + each * size_t(thread), task); }};
  }

  // A value of one image: in the batch's memory, or in a thread's.
  struct ImagePlace {
    uint8_t* batch = nullptr;  // null: the thread's
    size_t offset = 0;         // from an image to the next one; in the thread's memory

    void* of(int64_t image, uint8_t* thread) const {
      return batch == nullptr ? thread + offset : batch + size_t(image) * offset;
    }
  };

  ImagePlace image_place(int buffer, int node) const {
    if (in_thread_[size_t(buffer)]) return {nullptr, images_at_ + thread_offset_[size_t(buffer)]};
    return {static_cast<uint8_t*>(address(buffer)), size_t(shape(node).size()) * sizeof(float)};
  }

  Step images_step(size_t first, size_t end) const {
    struct Link {
      const ConvPlan* plan;
      ImagePlace x, residual, y;
      bool adds;
    };
    auto links = std::make_shared<std::vector<Link>>();
    for (size_t i = first; i < end; ++i) {
      const Todo& todo = todo_[i];
      const Node& node = nodes_[size_t(todo.node)];
      Link link = {made_.plans_[size_t(todo.node)].get(),
                   image_place(todo.reads[0], node.inputs[0]),
                   {},
                   image_place(todo.write, todo.node),
                   node.residual};
      if (node.residual) link.residual = image_place(todo.reads.back(), node.inputs.back());
      links->push_back(link);
    }
    uint8_t* workspace = made_.workspace_->data();
    const size_t each = made_.workspace_each_;
    return {batch_, [=](int64_t image, int thread) {
              uint8_t* const own = workspace + each * size_t(thread);
              for (const Link& link : *links) {
                const void *x = link.x.of(image, own), *residual = link.adds ? link.residual.of(image, own) : nullptr;
                void* y = link.y.of(image, own);
                for (int64_t task = 0; task < link.plan->tasks(); ++task) link.plan->run(x, residual, y, own, task);
              }
            }};
  }

  const Shape& shape(int node) const { return nodes_[size_t(node)].shape; }

  Variant& made_;
  const Graph& graph_;
  const std::vector<Node>& nodes_;
  const int64_t batch_;
  const Layout layout_;
  const Options options_;
  std::vector<Option> chosen_;
  std::vector<float> weight_;  // of one convolution after the other
  std::map<Buffer, int> place_;
  std::vector<Life> lives_;
  std::vector<void*> fixed_;
  std::vector<Todo> todo_;
  std::vector<int> group_;             // of what is to be done: the step
  std::vector<bool> in_thread_;        // of the buffers
  std::vector<size_t> thread_offset_;  // behind images_at_
  size_t images_at_ = 0;               // in a thread's memory, behind the plans' own
};

Variant::Variant(const Graph& graph, int64_t batch, Layout layout, const Options& options, Pool& pool) : pool_(pool) {
  Builder(*this, graph, batch, layout, options).build();
}

void Variant::run(const float* x, float* y) {
  x_ = x;
  y_ = y;
  for (const Step& step : steps_) pool_.run(step.tasks, step.run);
}

}  // namespace hiddennet::runtime
