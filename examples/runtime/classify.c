/* classify NETWORK [FILE]: the likeliest classes of images, float32 numbers as the network takes them, from FILE or
 * standard input, one image after another. */
#include <stdio.h>
#include <stdlib.h>

#include "hiddennet_runtime.h"

static int64_t count(const int64_t* dims, int n) {
  int64_t product = 1;
  for (int i = 0; i < n; ++i) product *= dims[i];
  return product;
}

static int fail(const char* what) {
  fprintf(stderr, "classify: %s\n", what);
  return 1;
}

int main(int argc, char** argv) {
  if (argc < 2 || argc > 3) return fail("usage: classify NETWORK [FILE]");
  FILE* file = argc == 3 ? fopen(argv[2], "rb") : stdin;
  if (file == NULL) return fail("expected a file of float32 images that can be read");
  hn_network* network = hn_load(argv[1], 0, HN_BF16_AUTO);
  if (network == NULL) return fail(hn_error());

  int64_t dims[3];
  const int64_t inputs = count(dims, hn_input_shape(network, dims));
  const int64_t outputs = count(dims, hn_output_shape(network, dims));
  float* x = malloc((size_t)inputs * sizeof(float));
  float* y = malloc((size_t)outputs * sizeof(float));
  int status = x == NULL || y == NULL ? fail("expected memory for an image, got none") : 0;
  while (status == 0 && fread(x, sizeof(float), (size_t)inputs, file) == (size_t)inputs) {
    if (hn_run(network, x, 1, HN_NCHW, y) != 0) {
      status = fail(hn_error());
      break;
    }
    int64_t best = 0;
    for (int64_t i = 1; i < outputs; ++i) {
      if (y[i] > y[best]) best = i;
    }
    printf("%lld %.6g\n", (long long)best, (double)y[best]);
  }
  free(x);
  free(y);
  hn_free(network);
  if (file != stdin) fclose(file);
  return status;
}
