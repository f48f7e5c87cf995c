// test_topk_select.cpp: thresholds and cuts against a plain sort and the CPU loops, without and
// with a hint that comes from the call before, in every thread order. Hints of every other kind:
// test_topk_select_warm.cpp.
#include "select_net.h"

using namespace hn;
using namespace hn::test;

namespace {

TEST(by_eye) {
  Net net = per_layer({flat({3, -1, 2})}, 0);
  net.k = {2};
  CHECK_EQ(kept_set(check(net)), (std::vector<uint32_t>{float_bits(2.0f), 0}));
  net = per_layer({flat({5, 5, -5})}, 0);
  net.k = {2};  // ties: the lower index is pruned first
  CHECK_EQ(kept_set(check(net)), (std::vector<uint32_t>{float_bits(5.0f), 1}));
  net.order = Order::kValue;
  CHECK_EQ(kept_set(check(net)), (std::vector<uint32_t>{value_key(float_bits(5.0f)), 0}));
  net = per_layer({flat({kNan, -1})}, 0);
  net.k = {1};  // NaN ranks highest
  CHECK_EQ(kept_set(check(net)), (std::vector<uint32_t>{kNanKey, 0}));
}

TEST(sizes_and_k) {
  for (const int n : {1, 31, 32, 33, 255, 1025, 4099}) {
    const Context size("n = " + std::to_string(n));
    for (const Order order : {Order::kMagnitude, Order::kValue}) {
      for (const int64_t k : {0, 1, n / 2, n - 1, n}) {
        const Context kept("k = " + std::to_string(k));
        if (k > n) continue;
        Net net = per_layer({flat(random_scores(n, 7), n % 4), flat(coarse_scores(n, 8), 3 - n % 4)}, 0, order);
        net.k = {k, n - k};
        const std::vector<Selection> rows = check(net);
        for (size_t i = 0; i < rows.size(); ++i) {
          const bool settled = net.k[i] == 0 || net.k[i] == n;
          CHECK_EQ(rows[i].width, kFirstWidth);
          CHECK_EQ(rows[i].cold, settled ? 0 : 1);
        }
        check(net, rows);
      }
    }
  }
}

TEST(channels_last_prunes_ties_in_oihw_order) {
  for (const Order order : {Order::kMagnitude, Order::kValue}) {
    const Net net = per_layer({ohwi(7, 13, 9, coarse_scores, 1), ohwi(32, 16, 9, random_scores, 2, 1),
                               ohwi(3, 1, 25, coarse_scores, 3), ohwi(40, 30, 1, coarse_scores, 4)},
                              0.4, order);
    check(net, check(net));
  }
}

TEST(all_equal) {
  for (const float value : {0.0f, -1.5f, kNan}) {
    Net net = per_layer({flat(std::vector<float>(2000, value)), flat(std::vector<float>(70, value))}, 0.3);
    const std::vector<Selection> rows = check(net);
    CHECK_EQ(rows[0].cut, 1400);
    check(net, rows);  // overflows the bracket of the large layer
  }
}

TEST(one_ranking_over_several_layers) {
  for (const Order order : {Order::kMagnitude, Order::kValue}) {
    Net net{{flat(coarse_scores(900, 1), 1), ohwi(8, 12, 9, coarse_scores, 2), flat(random_scores(1300, 3)),
             flat(coarse_scores(40, 4)), flat(random_scores(777, 5), 3)},
            {4, 1},
            {0, 300},
            order};
    for (const int64_t k : {0, 1, 700, 1500, 2000, 3103, 3104}) {
      net.k[0] = k;
      check(net, check(net));
    }
  }
}

TEST(ties_across_layers_are_pruned_layer_by_layer) {
  Net net{{flat(std::vector<float>(100, 1)), flat(std::vector<float>(100, 2)), flat(std::vector<float>(100, 1))},
          {3},
          {170},
          Order::kValue};
  const std::vector<Selection> rows = check(net);
  CHECK_EQ(rows[0].cut, 100);
  CHECK_EQ(rows[1].cut, 100);  // has no tie, but lies before the end of the quota
  CHECK_EQ(rows[2].cut, 30);
  check(net, rows);
}

TEST(more_layers_than_one_launch_holds) {
  std::vector<Layer> layers;
  for (int i = 0; i < 2 * cuda::kMaxSegments + 5; ++i) layers.push_back(flat(random_scores(1 + i % 40, uint64_t(i))));
  Net net = per_layer(layers, 0.5);
  check(net, check(net));
  net.group_sizes.assign(1, cuda::kMaxSegments + 1);
  net.layers.resize(cuda::kMaxSegments + 1);
  net.k.assign(1, 100);
  std::vector<Selection> rows;
  CHECK_EQ((launch_select<64, 512>(net, {}, &rows)), kRefused);
}

// More chunks than the finishing block has threads, at every place of the cut within them.
TEST(tiny_chunks) {
  for (const bool channels_last : {false, true}) {
    const Layer ties{std::vector<float>(4900, 1.0f), {4900, 49, 7, 7, channels_last}, 1};
    for (const int64_t k : {1, 100, 2500, 4799, 4899}) {
      Net net = per_layer({ties, flat(random_scores(4099, 3), 2)}, 0.5);
      net.k[0] = k;
      const std::vector<uint32_t> want = kept_set(expected(net));
      const std::vector<Selection> rows = select<32, 128>(net, {});
      CHECK_EQ(kept_set(rows), want);
      CHECK_EQ(kept_set(select<32, 128>(net, rows)), want);
    }
  }
}

TEST(sizes_of_the_gpu) {
  const Net net = per_layer({flat(random_scores(20011, 1), 1), flat(random_scores(8192, 2)),
                             ohwi(9, 20, 9, coarse_scores, 3), flat(coarse_scores(9000, 4), 2)},
                            0.5);
  check(net, check(net, {}, true), true);
}

}  // namespace
