// test_topk_select_warm.cpp: brackets that hold the answer, miss it, overflow, saturate or are full
// of ties: the kept set is always that of a plain sort, and `width` and `cold` tell what happened.
#include "select_net.h"

using namespace hn;
using namespace hn::test;

namespace {

TEST(a_right_hint_stays_warm) {
  Net net =
      per_layer({flat(random_scores(4099, 1)), flat(random_scores(700, 2), 2), ohwi(16, 20, 9, random_scores, 3)}, 0.5);
  std::vector<Selection> rows = check(net);
  for (int step = 0; step < 3; ++step) {
    for (Layer& l : net.layers) {
      for (float& s : l.scores) s *= 1.001f;
    }
    rows = check(net, rows);
    for (const Selection& r : rows) CHECK_EQ(r.cold, 1);
  }
}

TEST(a_wrong_hint_falls_back) {
  const Net net = per_layer({flat(random_scores(4099, 1)), flat(random_scores(700, 2), 2)}, 0.5);
  const std::vector<Selection> right = check(net);
  for (const uint32_t wrong : {0u, float_bits(1e-3f), float_bits(0.9f), 0xfffffff0u, 0xffffffffu}) {
    // The first layer misses, the second does not, and must not change with the first.
    const std::vector<Selection> rows = check(net, {{wrong, 0, 1u << 10, 5}, {right[1].threshold, 0, 1u << 20, 3}});
    CHECK_EQ(rows[0].cold, 6);
    CHECK_EQ(rows[0].width, 1u << 12);
    CHECK_EQ(rows[1].cold, 3);
    check(net, {{wrong, 0, 1u << 10, 5}, {right[1].threshold, 0, 0, 0}});  // one missed, one cold
  }
}

TEST(a_bracket_with_too_many_candidates_falls_back) {
  const Net net = per_layer({flat(random_scores(4099, 1)), flat(random_scores(700, 2))}, 0.5);
  const std::vector<Selection> right = check(net);
  const std::vector<Selection> rows =
      check(net, {{right[0].threshold, 0, 1u << 30, 1}, {right[1].threshold, 0, 16, 1}});
  CHECK_EQ(rows[0].cold, 2);
  CHECK_EQ(rows[0].width, 1u << 28);
  CHECK_EQ(rows[1].cold, 1);
  CHECK_EQ(rows[1].width, 16u);
}

TEST(brackets_of_every_width) {
  const Net net = per_layer({flat(random_scores(1025, 4)), flat(coarse_scores(300, 5))}, 0.6);
  const std::vector<Selection> right = check(net);
  for (int bits = 0; bits < 32; ++bits) {
    check(net, {{right[0].threshold + 1, 9, 1u << bits, 0}, {right[1].threshold, 9, 1u << bits, 0}});
  }
}

// Keys 1000 .. 1299 once each, shuffled: every place of the answer relative to the bracket's ends.
TEST(the_bracket_is_inclusive_and_saturates) {
  std::vector<float> scores(300);
  for (size_t i = 0; i < 300; ++i) scores[i] = bits_float(uint32_t(1000 + i * 7 % 300));
  Net net = per_layer({flat(scores)}, 0);
  for (const uint32_t answer : {1000u, 1001u, 1130u, 1150u, 1298u, 1299u}) {
    net.k[0] = 1300 - answer;
    for (const uint32_t width : {1u, 20u}) {
      for (const int off : {-21, -20, -19, -2, -1, 0, 1, 2, 19, 20, 21}) {
        const bool inside = uint32_t(std::abs(off)) <= width && net.k[0] < 300;
        const std::vector<Selection> rows = check(net, {{uint32_t(int(answer) + off), 3, width, 0}});
        CHECK_EQ(rows[0].threshold, net.k[0] < 300 ? answer : 0);
        CHECK_EQ(rows[0].cold, net.k[0] == 300 || inside ? 0 : 1);
      }
    }
  }
  for (size_t i = 0; i < 300; ++i) scores[i] = bits_float(uint32_t(i * 7 % 300));  // around 0
  net = per_layer({flat(scores)}, 0.9);
  CHECK_EQ(check(net, {{10, 0, 40, 0}})[0].cold, 0);
  for (size_t i = 0; i < 300; ++i) scores[i] = i % 7 ? 0.0f : kNan;  // up to the last key
  net = per_layer({flat(scores)}, 0.1);
  CHECK_EQ(check(net, {{0xffffffffu, 0, 40, 0}})[0].cold, 0);
}

// The other chunk's candidates alone would give an answer, and a wrong one.
TEST(one_overflowing_chunk_spoils_the_bracket) {
  std::vector<float> scores(1024, 1.0f);
  for (size_t i = 512; i < 1024; ++i) scores[i] = i % 10 ? 100.0f : 1.0f + 1e-5f * float(i);
  Net net = per_layer({flat(scores)}, 0);
  net.k[0] = 1014;
  const std::vector<Selection> rows = check(net, {{float_bits(1.0f), 0, 1u << 20, 0}});
  CHECK_EQ(rows[0].cold, 1);
  CHECK_EQ(rows[0].width, 1u << 18);
}

TEST(a_few_ties_in_a_warm_channels_last_layer) {
  Random random(5);
  for (int round = 0; round < 6; ++round) {
    Layer layer = ohwi(16, 20, 9, random_scores, 3, round % 4);
    for (int i = 0; i < 20; ++i) layer.scores[random.below(2880)] = i % 2 ? 0.021f : -0.021f;
    Net net{{layer, flat(random_scores(100, 6)), layer}, {3}, {0}, Order::kMagnitude};
    const std::vector<Selection> hint(3, {float_bits(0.021f), 0, 1u << 12, 0});
    size_t below = 0;
    for (const Layer& l : net.layers) {
      for (const float s : l.scores) below += std::fabs(s) < 0.021f;
    }
    for (const size_t quota : {0, 1, 10, 19, 21, 35}) {
      net.k[0] = int64_t(5860 - below - quota);
      const std::vector<Selection> rows = check(net, hint);
      CHECK_EQ(rows[0].threshold, float_bits(0.021f));
      CHECK_EQ(rows[0].cold, 0);
    }
  }
}

// More ties than the finishing block has threads: the cut comes from counting over the scores.
TEST(a_warm_bracket_full_of_ties) {
  std::vector<float> scores = random_scores(4096, 6);
  Random random(9);
  for (int i = 0; i < 330; ++i) scores[random.below(4096)] = 0.02f;
  for (const double part : {0.58, 0.6, 0.62}) {
    for (const bool channels_last : {false, true}) {
      Net net = per_layer({{scores, {4096, 64, 16, 4, channels_last}, 1}}, part);
      const std::vector<Selection> rows = check(net, {{float_bits(0.02f), 0, 1u << 12, 0}});
      if (rows[0].threshold == float_bits(0.02f)) CHECK_EQ(rows[0].cold, 0);
    }
  }
}

}  // namespace
