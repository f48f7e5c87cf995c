// test_counted_select.cpp: steps that count around the last threshold, and selections made of what they counted: the
// kept set is that of a plain sort, the scores are those of a step that counts nothing, and no score is read again.
#include "ops/score_step/score_step.cu"
#include "ops/topk_select/counts.h"
#include "select_net.h"

using namespace hn;
using namespace hn::test;

namespace {

constexpr int kThreads = 64, kChunk = 512;

// What a step changes scores by, and the elements that take part in it, in memory and OIHW order.
struct Move {
  std::vector<float> grad;
  std::vector<uint8_t> flags;
};

const ScoreHyper kHyper{0.0f, 0.0f, 0.9f, 0.1f, 0.999f, 0.001f, 1e-8f, -1.0f, 1.0f};

std::vector<Move> moves(const Net& net, float size, bool flagged, uint64_t seed) {
  Random random(seed);
  std::vector<Move> all;
  for (const Layer& l : net.layers) {
    Move m;
    for (size_t i = 0; i < l.scores.size(); ++i) m.grad.push_back(size * random.symmetric());
    for (size_t i = 0; flagged && i < (l.scores.size() + 7) / 8; ++i) {
      m.flags.push_back(i % 3 == 0 ? 0 : uint8_t(random.below(256)));
    }
    all.push_back(m);
  }
  return all;
}

struct Result {
  std::vector<std::vector<float>> scores;
  std::vector<Selection> rows;
};

bool all_zero(const void* bytes, size_t n) {
  const auto* b = static_cast<const unsigned char*>(bytes);
  return std::all_of(b, b + n, [](unsigned char c) { return c == 0; });
}

std::vector<ScoreSegment> segments_of(const Net& net, const std::vector<Move>& by, const std::vector<float*>& scores,
                                      const std::vector<const float*>& grads, const std::vector<float*>& first,
                                      const std::vector<const uint8_t*>& flags, bool counts) {
  std::vector<ScoreSegment> segments;
  for (size_t l = net.layers.size(); l-- > 0;) {  // in another order than they are ranked
    ScoreSegment s{
        scores[l], grads[l], first[l], nullptr, by[l].flags.empty() ? nullptr : flags[l], net.layers[l].layout,
        1.0f,      0.0f};
    if (counts) s.ranked = int32_t(l);
    segments.push_back(s);
  }
  return segments;
}

// `read_again`: whether the selection is given the scores, or memory of other ones.
Result cpu_step(const Net& net, const std::vector<Move>& by, const std::vector<Selection>& hint, bool counts,
                bool read_again = true) {
  Result result;
  std::vector<std::vector<float>> first;
  std::vector<float*> scores, moments;
  std::vector<const float*> grads, ranked;
  std::vector<const uint8_t*> flags;
  for (const Layer& l : net.layers) {
    result.scores.push_back(l.scores);
    first.emplace_back(l.scores.size(), 0.0f);
  }
  for (size_t l = 0; l < net.layers.size(); ++l) {
    scores.push_back(result.scores[l].data());
    moments.push_back(first[l].data());
    grads.push_back(by[l].grad.data());
    flags.push_back(by[l].flags.data());
    ranked.push_back(read_again ? result.scores[l].data() : by[l].grad.data());
  }
  const Tables t = tables(net, ranked);
  result.rows = hint;
  TopkSelectParams next{t.segments.data(),        t.groups.data(), int32_t(t.segments.size()),
                        int32_t(t.groups.size()), net.order,       result.rows.data(),
                        result.rows.data(),       false,           nullptr};
  std::vector<uint64_t> memory(cpu::topk_counts_bytes(next) / 8 + 1, 0);
  if (counts) next.counts = memory.data();
  const std::vector<ScoreSegment> segments = segments_of(net, by, scores, grads, moments, flags, counts);
  cpu::score_step({segments.data(), int32_t(segments.size()), ScoreRule::kMomentum, kHyper, counts ? &next : nullptr});
  cpu::topk_select(next);
  CHECK(all_zero(memory.data(), t.groups.size() * sizeof(cpu::GroupCount)));
  return result;
}

// `stale`: the word that says that there are counts is taken back.
Result cuda_step(const Net& net, const std::vector<Move>& by, const std::vector<Selection>& hint, bool counts,
                 bool read_again = true, bool stale = false) {
  std::vector<std::unique_ptr<Buffer<float>>> floats;
  std::vector<std::unique_ptr<Buffer<uint8_t>>> bytes;
  std::vector<float*> scores, moments;
  std::vector<const float*> grads, ranked;
  std::vector<const uint8_t*> flags;
  const auto copy = [&](std::vector<float> values, int skew) {
    values.insert(values.begin(), size_t(skew), kNan);
    floats.push_back(std::make_unique<Buffer<float>>(values));
    return floats.back()->data() + skew;
  };
  for (size_t l = 0; l < net.layers.size(); ++l) {
    const Layer& layer = net.layers[l];
    scores.push_back(copy(layer.scores, layer.skew));
    grads.push_back(copy(by[l].grad, 0));
    moments.push_back(copy(std::vector<float>(layer.scores.size(), 0.0f), 0));
    ranked.push_back(read_again ? scores.back() : copy(by[l].grad, layer.skew));
    bytes.push_back(std::make_unique<Buffer<uint8_t>>(by[l].flags));
    flags.push_back(bytes.back()->data());
  }
  const Tables t = tables(net, ranked);
  Buffer<Selection> rows(hint);
  TopkSelectParams next{t.segments.data(),
                        t.groups.data(),
                        int32_t(t.segments.size()),
                        int32_t(t.groups.size()),
                        net.order,
                        rows.data(),
                        rows.data(),
                        false,
                        nullptr};
  Buffer<uint8_t> workspace(cuda::select_workspace<kChunk>(next));
  next.workspace = workspace.data();
  const size_t size = cuda::select_counts<kChunk>(next);
  Buffer<uint8_t> memory(std::vector<uint8_t>(size, uint8_t(0)));
  if (counts) next.counts = memory.data();
  const std::vector<ScoreSegment> segments = segments_of(net, by, scores, grads, moments, flags, counts);
  CHECK_EQ(
      cuda::score_step_in_chunks<kChunk>(
          {segments.data(), int32_t(segments.size()), ScoreRule::kMomentum, kHyper, counts ? &next : nullptr}, nullptr),
      0);
  if (stale) {
    Buffer<uint8_t> fresh(std::vector<uint8_t>(size, uint8_t(0)));
    next.counts = fresh.data();
    CHECK_EQ((cuda::select_in_chunks<kThreads, kChunk>(next, nullptr)), 0);
  } else {
    CHECK_EQ((cuda::select_in_chunks<kThreads, kChunk>(next, nullptr)), 0);
    if (counts) {
      const std::vector<uint8_t> after = memory.read();
      CHECK_EQ(int(after[0]), 1);
      CHECK(all_zero(after.data() + 256, t.groups.size() * sizeof(cuda::GroupCount)));
    }
  }
  Result result;
  for (size_t l = 0; l < net.layers.size(); ++l) {
    const std::vector<float> all = floats[l * (read_again ? 3 : 4)]->read();
    result.scores.emplace_back(all.begin() + net.layers[l].skew, all.end());
  }
  result.rows = rows.read();
  return result;
}

Net moved(Net net, const Result& by) {
  for (size_t l = 0; l < net.layers.size(); ++l) net.layers[l].scores = by.scores[l];
  return net;
}

void check_same_scores(const Result& got, const Result& want) {
  for (size_t l = 0; l < want.scores.size(); ++l) CHECK_EQ(got.scores[l], want.scores[l]);
}

// A step of both backends, counted and not: the same scores, and the kept set of a sort. Returns the kernel's rows.
std::vector<Selection> check_step(const Net& net, const std::vector<Move>& by, const std::vector<Selection>& hint) {
  const Result plain = cpu_step(net, by, hint, false);
  const std::vector<uint32_t> want = kept_set(expected(moved(net, plain)));
  CHECK_EQ(kept_set(plain.rows), want);
  const Isa own = isa();
  const bool own_wide = wide();
  for (const bool wider : {own_wide, false}) {
    wide() = wider;
    const Result counted = cpu_step(net, by, hint, true);
    check_same_scores(counted, plain);
    CHECK_EQ(kept_set(counted.rows), want);
  }
  isa() = Isa::kScalar;
  CHECK_EQ(kept_set(cpu_step(net, by, hint, true).rows), want);
  isa() = own;
  wide() = own_wide;
  std::vector<Selection> rows;
  same_in_every_order([&] {
    const Result counted = cuda_step(net, by, hint, true);
    check_same_scores(counted, plain);
    rows = counted.rows;
    std::vector<uint32_t> all = kept_set(rows);
    for (const Selection& r : rows) {
      all.push_back(r.width);
      all.push_back(uint32_t(r.cold));
    }
    return all;
  });
  CHECK_EQ(kept_set(rows), want);
  CHECK_EQ(kept_set(cuda_step(net, by, hint, true, true, true).rows), want);
  return rows;
}

Net small_net(Order order = Order::kMagnitude) {
  return per_layer({flat(random_scores(4099, 1)), flat(random_scores(700, 2), 2), ohwi(16, 20, 9, random_scores, 3),
                    ohwi(5, 24, 9, random_scores, 4, 1), flat(random_scores(1, 5))},
                   0.5, order);
}

std::vector<Selection> first_rows(const Net& net) {
  std::vector<Selection> rows = select_cpu(net, {});
  for (Selection& r : rows) r.width = 1u << 20;  // an eighth of a value: some candidates even of few scores
  return rows;
}

TEST(a_small_step_is_settled_by_what_it_counted) {
  for (const Order order : {Order::kMagnitude, Order::kValue}) {
    const Net net = small_net(order);
    const std::vector<Selection> hint = first_rows(net);
    for (const bool flagged : {false, true}) {
      const std::vector<Selection> rows = check_step(net, moves(net, 1e-5f, flagged, 7), hint);
      for (size_t l = 0; l < 4; ++l) CHECK_EQ(rows[l].cold, hint[l].cold);
    }
  }
}

TEST(no_score_is_read_again) {
  const Net net = small_net();
  const std::vector<Selection> hint = first_rows(net);
  const std::vector<Move> by = moves(net, 1e-5f, false, 7);
  const std::vector<uint32_t> want = kept_set(cpu_step(net, by, hint, true).rows);
  CHECK_EQ(kept_set(cpu_step(net, by, hint, true, false).rows), want);
  CHECK_EQ(kept_set(cuda_step(net, by, hint, true, false).rows), want);
  CHECK(kept_set(cuda_step(net, by, hint, false, false).rows) != want);  // which reads others
}

TEST(a_step_past_the_bracket_falls_back) {
  const Net net = small_net();
  std::vector<Selection> hint = first_rows(net);
  hint[0].width = 16;
  const std::vector<Selection> rows = check_step(net, moves(net, 0.05f, false, 8), hint);
  CHECK_EQ(rows[0].cold, hint[0].cold + 1);
  CHECK_EQ(rows[0].width, 64u);
}

TEST(a_list_that_overflows_falls_back) {
  const Net net = small_net();
  std::vector<Selection> hint = first_rows(net);
  hint[0].width = 1u << 30;
  const std::vector<Selection> rows = check_step(net, moves(net, 1e-5f, false, 9), hint);
  CHECK_EQ(rows[0].cold, hint[0].cold + 1);
  CHECK_EQ(rows[0].width, 1u << 28);
}

// Scores that do not move, so that ties stay ties: a few, and more than the finishing block has threads.
TEST(ties_are_cut_in_oihw_order) {
  for (const int ties : {20, 400}) {
    Random random(5);
    Layer layer = ohwi(16, 40, 9, random_scores, 3, 1);
    for (int i = 0; i < ties; ++i) layer.scores[random.below(5760)] = i % 2 ? 0.02f : -0.02f;
    Net net{{layer, flat(random_scores(100, 6)), layer}, {3}, {0}, Order::kMagnitude};
    const std::vector<Selection> hint(3, {float_bits(0.02f), 0, 1u << 12, 0});
    const std::vector<Move> by = moves(net, 0.0f, false, 1);
    size_t below = 0;
    for (const Layer& l : net.layers) {
      for (const float s : l.scores) below += std::fabs(s) < 0.02f;
    }
    for (const size_t quota : {1, 7, 19}) {
      net.k[0] = int64_t(11620 - below - quota);
      CHECK_EQ(check_step(net, by, hint)[0].cold, 0);
    }
  }
}

TEST(what_is_settled_anyway_is_not_counted) {
  Net net = small_net();
  net.k[0] = 0;
  net.k[2] = net.layers[2].layout.n;
  check_step(net, moves(net, 1e-5f, false, 3), first_rows(net));
}

TEST(special_scores_are_counted) {
  Net net = per_layer({flat(coarse_scores(2100, 5)), flat(coarse_scores(900, 6))}, 0.6, Order::kValue);
  std::vector<Selection> hint = select_cpu(net, {});
  for (Selection& r : hint) r.width = 64;
  check_step(net, moves(net, 0.0f, false, 3), hint);
}

TEST(brackets_of_every_width) {
  const Net net = small_net();
  const std::vector<Selection> right = first_rows(net);
  for (int bits = 0; bits < 32; bits += 3) {
    std::vector<Selection> hint = right;
    for (Selection& r : hint) r.width = 1u << bits;
    check_step(net, moves(net, 1e-4f, true, uint64_t(bits)), hint);
  }
}

}  // namespace
