// test_masked_conv.cpp: masked_conv against a plain loop in double precision, over shapes, layouts,
// sources and rules.
#include <cmath>
#include <string>
#include <vector>

#include "conv_reference.h"
#include "device.h"
#include "ops/masked_conv/masked_conv.cu"

namespace hn {
namespace test {
namespace {

// Multiprocessors to fill: the large tile wherever it applies, or never.
constexpr int kOneProcessor = 1, kManyProcessors = 1 << 30;

struct Placement {
  int processors = kOneProcessor;
  size_t input_shift = 0, score_shift = 0, output_shift = 0;  // elements off an aligned address
};

std::vector<uint16_t> run(const Shape& shape, const Layer& l, const std::vector<uint16_t>& input, size_t outputs,
                          bool gradient, const Placement& at) {
  Buffer<uint16_t> in(input.size() + at.input_shift), out(outputs + at.output_shift);
  Buffer<float> scores(l.scores.size() + at.score_shift), stored(l.stored);
  Buffer<uint8_t> plane(l.plane), bits(l.bits);
  Buffer<int64_t> step(l.step);
  Buffer<Selection> selection(l.selection);
  const auto shifted = [](auto values, size_t by) {
    values.insert(values.begin(), by, {});
    return values;
  };
  in.write(shifted(input, at.input_shift));
  scores.write(shifted(l.scores, at.score_shift));
  MaskedConvParams p = {};
  p.input = in.data() + at.input_shift;
  p.output = out.data() + at.output_shift;
  const bool reads_scores = l.rule.kind != RuleKind::kAll && l.rule.kind != RuleKind::kBits;
  p.scores = reads_scores ? scores.data() + at.score_shift : nullptr;
  p.rule = l.rule;
  p.rule.selection = selection.data();
  p.rule.bits = bits.data();
  p.rule.step = l.rule.step == nullptr ? nullptr : step.data();
  p.source = l.source;
  p.source.stored = stored.data();
  p.source.plane = plane.data();
  p.layout = l.layout;
  p.shape = shape.conv();
  CHECK_EQ(cuda::masked_conv(p, gradient, at.processors, nullptr), 0);
  std::vector<uint16_t> result = out.read();
  result.erase(result.begin(), result.begin() + std::ptrdiff_t(at.output_shift));
  return result;
}

// The kernel under every order against the loop. Integers: equal bits. Otherwise: bfloat16's
// rounding of the result, and for each of the sums in float a rounding of at most 2^-23 of what has
// been added.
void check_direction(const Shape& shape, const Recipe& recipe, bool gradient, const Placement& at = {}) {
  const Context in(shape.text() + ", " + recipe.text() + (gradient ? ", gradient" : ", forward"));
  const Layer layer = make_layer(shape, recipe);
  const ConvShape s = shape.conv();
  Random random(recipe.seed + 100);
  std::vector<uint16_t> input(size_t(s.batch) * size_t(gradient ? s.out_height * s.out_width * s.out_channels
                                                                : s.in_height * s.in_width * s.in_channels));
  for (uint16_t& v : input) v = bfloat16_bits(drawn(&random, recipe.integers, 4));
  if (recipe.infinity) input[input.size() / 2] = bfloat16_bits(INFINITY);
  const Expected expected = expect(shape, layer, input, gradient);
  const size_t outputs = expected.sum.size();
  const std::vector<uint16_t> got =
      same_in_every_order([&] { return run(shape, layer, input, outputs, gradient, at); });
  const double depth = double(shape.taps()) * (gradient ? s.out_channels : s.in_channels);
  for (size_t i = 0; i < outputs; ++i) {
    const Context where("output " + std::to_string(i));
    if (recipe.integers) {
      CHECK_EQ(got[i], bfloat16_bits(float(expected.sum[i])));
    } else {
      const double error = std::fabs(double(from_bfloat16(got[i])) - expected.sum[i]);
      CHECK(error <= std::ldexp(std::fabs(expected.sum[i]), -8) + std::ldexp(depth * expected.magnitude[i], -23));
    }
  }
}

void check_both(const Shape& shape, const Recipe& recipe, const Placement& at = {}) {
  check_direction(shape, recipe, false, at);
  check_direction(shape, recipe, true, at);
}

Recipe recipe(Source source, RuleKind rule, bool channels_last = true) {
  Recipe r;
  r.source = source;
  r.rule = rule;
  r.channels_last = channels_last;
  return r;
}

}  // namespace

TEST(shapes) {
  const std::vector<Shape> shapes = {
      {3, 16, 33, {5, 7}, {1, 1}},
      {1, 64, 64, {4, 5}, {3, 3}, {1, 1}, {1, 1}},
      {3, 8, 16, {7, 4}, {3, 3}, {2, 2}, {1, 1}},
      {1, 8, 8, {9, 7}, {5, 5}, {1, 1}, {4, 4}, {2, 2}},
      {1, 3, 16, {9, 11}, {7, 7}, {2, 2}, {3, 3}},
      {3, 1, 1, {5, 4}, {3, 3}, {1, 1}, {1, 1}},
      {1, 33, 8, {3, 4}, {3, 3}, {1, 1}, {1, 1}},
      {1, 8, 33, {3, 4}, {3, 3}, {1, 1}, {1, 1}},
      {1, 12, 8, {3, 4}, {3, 3}, {1, 1}, {1, 1}},
      {3, 64, 1, {2, 3}, {1, 1}},
      {1, 1, 64, {2, 3}, {3, 3}, {1, 1}, {1, 1}},
      {3, 264, 16, {1, 1}, {1, 1}},                        // fully connected
      {1, 16, 24, {3, 5}, {3, 5}},                         // the kernel is the image
      {1, 8, 8, {7, 6}, {3, 1}, {3, 2}, {2, 0}, {1, 2}},   // each axis its own
      {2, 8, 8, {5, 5}, {1, 1}, {2, 2}},                   // phases no tap reaches
      {1, 8, 8, {9, 8}, {3, 3}, {2, 2}, {2, 2}, {2, 2}},   // stride and dilation share a factor
      {1, 16, 8, {7, 7}, {2, 2}, {4, 3}, {1, 0}, {1, 1}},  // stride beyond the kernel
      {1, 8, 8, {2, 2}, {3, 3}, {1, 1}, {3, 3}, {1, 1}},   // rows of nothing but padding
  };
  int turn = 0;
  for (const Shape& shape : shapes) {
    for (bool channels_last : {true, false}) {
      const Source source = turn % 3 ? Source::kSigns : Source::kConstant;
      check_both(shape, recipe(source, turn % 2 ? RuleKind::kValue : RuleKind::kMagnitude, channels_last));
      ++turn;
    }
  }
}

// More rows and columns than one large tile holds, through each pair of loaders; the small tile on
// the same.
TEST(both_tiles) {
  const Shape wide = {1, 72, 72, {10, 13}, {1, 1}}, odd = {1, 67, 70, {10, 13}, {1, 1}};
  const Recipe fast = recipe(Source::kSigns, RuleKind::kMagnitude);
  Placement small;
  small.processors = kManyProcessors;
  check_both(wide, fast);
  check_both(wide, fast, small);
  check_both(wide, recipe(Source::kStored, RuleKind::kValue));
  check_both(odd, recipe(Source::kSigns, RuleKind::kMagnitude, false));
  check_both({2, 40, 40, {8, 9}, {3, 3}, {1, 1}, {1, 1}}, fast);
  check_direction({1, 40, 16, {24, 22}, {3, 3}, {2, 2}, {1, 1}}, fast,
                  true);  // phases of unequal size
}

TEST(every_source_and_rule) {
  const Shape vectors = {1, 8, 8, {3, 4}, {3, 3}, {1, 1}, {1, 1}}, scalars = {1, 3, 5, {3, 4}, {3, 3}, {1, 1}, {1, 1}};
  for (Source source : kSources) {
    for (RuleKind rule : {RuleKind::kAll, RuleKind::kMagnitude, RuleKind::kValue, RuleKind::kBits, RuleKind::kSampled,
                          RuleKind::kRounded, RuleKind::kScored}) {
      for (bool channels_last : {true, false}) {
        Recipe r = recipe(source, rule, channels_last);
        r.integers = false;
        r.score_levels = rule == RuleKind::kSampled ? kContinuous : 5;
        r.draws = source == Source::kSigns && channels_last;  // of kRounded
        check_both(vectors, r);
        check_both(scalars, r);
      }
    }
  }
}

TEST(densities_and_ties) {
  const Shape shape = {1, 16, 8, {4, 4}, {3, 3}, {1, 1}, {1, 1}};
  for (RuleKind rule : {RuleKind::kMagnitude, RuleKind::kValue, RuleKind::kRounded}) {
    for (double density : {0.0, 0.001, 0.37, 1.0}) {
      for (int levels : {kContinuous, 1, 2}) {  // distinct scores, one tie of all, two groups
        Recipe r = recipe(Source::kSigns, rule);
        r.density = density;
        r.score_levels = levels;
        check_both(shape, r);
      }
    }
  }
}

// Every k of a small layer, so that the threshold is each of the special scores, within its ties
// and at their ends.
TEST(special_scores) {
  for (RuleKind rule : {RuleKind::kMagnitude, RuleKind::kValue, RuleKind::kRounded}) {
    for (int k = 0; k <= 64; ++k) {
      Recipe r = recipe(Source::kSigns, rule);
      r.score_levels = kSpecial;
      r.density = k / 64.0;
      check_direction({1, 8, 8, {1, 2}, {1, 1}}, r, k % 2 != 0);
    }
  }
}

TEST(random_shapes) {
  Random random(5);
  const auto between = [&](int low, int high) { return low + int(random.below(uint32_t(high - low + 1))); };
  const int32_t channels[] = {1, 2, 3, 7, 8, 12, 16, 24, 33, 40};
  for (int trial = 0; trial < 80; ++trial) {
    Shape s = {
        between(1, 3), channels[random.below(10)], channels[random.below(10)], {}, {between(1, 4), between(1, 4)}};
    s.stride = {between(1, 3), between(1, 3)};
    s.dilation = {between(1, 2), between(1, 2)};
    s.padding = {between(0, 2), between(0, 2)};
    const auto smallest = [](int kernel, int dilation, int padding) {
      return std::max(1, dilation * (kernel - 1) + 1 - 2 * padding);
    };
    s.image = {smallest(s.kernel.h, s.dilation.h, s.padding.h) + between(0, 6),
               smallest(s.kernel.w, s.dilation.w, s.padding.w) + between(0, 6)};
    Recipe r = recipe(random.below(2) ? Source::kSigns : Source::kConstant,
                      random.below(2) ? RuleKind::kMagnitude : RuleKind::kValue, random.below(3) != 0);
    r.seed = uint64_t(trial);
    r.density = double(random.uniform());
    check_direction(s, r, random.below(2) != 0);
  }
}

// Sums long enough to round, on every path.
TEST(real_numbers) {
  Recipe r = recipe(Source::kSigns, RuleKind::kMagnitude);
  r.integers = false;
  r.score_levels = kContinuous;
  check_both({5, 520, 48, {1, 1}, {1, 1}}, r);
  check_both({1, 48, 24, {5, 5}, {3, 3}, {1, 1}, {1, 1}}, r);
  r.source = Source::kNormal;
  check_both({2, 19, 11, {4, 5}, {3, 3}, {2, 1}, {1, 1}}, r);
}

// An infinite activation reaches the outputs whose windows hold it and no other: nothing else is
// multiplied by zero.
TEST(infinity_stays_in_its_window) {
  Recipe r = recipe(Source::kConstant, RuleKind::kMagnitude);
  r.density = 1.0;
  r.infinity = true;
  check_both({2, 8, 8, {6, 7}, {1, 1}}, r);
  check_both({2, 3, 3, {6, 7}, {1, 1}}, r);
  check_both({1, 8, 8, {6, 7}, {3, 3}, {1, 1}, {1, 1}}, r);
}

TEST(any_alignment) {
  const Shape shape = {1, 8, 16, {3, 4}, {3, 3}, {1, 1}, {1, 1}};
  const Recipe r = recipe(Source::kSigns, RuleKind::kMagnitude);
  for (size_t shift : {size_t(1), size_t(4)}) {
    check_both(shape, r, {kOneProcessor, shift, 0, 0});
    check_both(shape, r, {kOneProcessor, 0, shift / 2 + 1, 0});
    check_both(shape, r, {kOneProcessor, 0, 0, shift});
  }
}

TEST(refuses_and_empty) {
  const Shape shape = {1, 8, 8, {3, 4}, {3, 3}, {1, 1}, {1, 1}};
  const Layer layer = make_layer(shape, {});
  MaskedConvParams p = {};
  p.rule = layer.rule;
  p.source = layer.source;
  p.layout = layer.layout;
  p.shape = shape.conv();
  const auto refused = [](const MaskedConvParams& wrong) {
    return cuda::masked_conv_forward(wrong, nullptr) == kRefused &&
           cuda::masked_conv_input_gradient(wrong, nullptr) == kRefused;
  };
  MaskedConvParams wrong = p;
  wrong.rule.kind = RuleKind::kExpectation;
  CHECK(refused(wrong));
  wrong = p;
  wrong.layout.channels = 4;
  CHECK(refused(wrong));
  wrong = p;
  wrong.shape.stride_height = 0;
  CHECK(refused(wrong));
  wrong = p;
  wrong.shape.batch = 1 << 30;
  CHECK(refused(wrong));
  MaskedConvParams empty = p;
  empty.shape.batch = 0;
  CHECK_EQ(cuda::masked_conv_forward(empty, nullptr), 0);
  CHECK_EQ(cuda::masked_conv_input_gradient(empty, nullptr), 0);
}

}  // namespace test
}  // namespace hn
