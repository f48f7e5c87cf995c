// The Python module _runtime: numpy arrays in, numpy arrays out.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "../error.h"
#include "../network.h"

namespace py = pybind11;
using namespace hiddennet::runtime;

namespace {

std::vector<int64_t> dims(const Shape& shape) {
  if (shape.rank == 2) return {shape.channels};
  if (shape.rank == 3) return {shape.channels, shape.width};
  return {shape.channels, shape.height, shape.width};
}

std::vector<int64_t> in_layout(std::vector<int64_t> dims, Layout layout) {
  if (layout == Layout::nhwc_f32) std::rotate(dims.begin(), dims.begin() + 1, dims.end());
  return dims;
}

// x: float32, contiguous, of the network's shape: the Python side has checked it.
py::array_t<float> run(Network& network, const py::array_t<float, py::array::c_style>& x, bool channels_last) {
  const Layout layout = channels_last ? Layout::nhwc_f32 : Layout::nchw_f32;
  std::vector<int64_t> wanted = in_layout(dims(network.input_shape()), layout), made;
  bool fits = x.ndim() == py::ssize_t(wanted.size()) + 1;
  for (size_t i = 0; fits && i < wanted.size(); ++i) fits = x.shape(py::ssize_t(i) + 1) == wanted[i];
  if (!fits) fail("expected an array of the network's shape, got another");
  made = in_layout(dims(network.output_shape()), layout);
  made.insert(made.begin(), x.shape(0));
  py::array_t<float> y(made);
  const float* from = x.data();
  float* to = y.mutable_data();
  {
    const py::gil_scoped_release release;
    network.run(from, made[0], layout, to);
  }
  return y;
}

}  // namespace

PYBIND11_MODULE(_runtime, module) {
  static const py::exception<Error> error(module, "Error", PyExc_ValueError);
  py::register_exception_translator([](std::exception_ptr thrown) {
    try {
      if (thrown) std::rethrow_exception(thrown);
    } catch (const Error& e) {  // its text names paths, which need not be UTF-8
      const std::string text = e.what();
      const auto said = py::reinterpret_steal<py::object>(
          PyUnicode_DecodeUTF8(text.data(), py::ssize_t(text.size()), "backslashreplace"));
      if (said) PyErr_SetObject(error.ptr(), said.ptr());
    }
  });
  py::class_<Network>(module, "Network")
      .def(py::init([](const std::string& path, int threads, int bf16) {
             const py::gil_scoped_release release;
             return std::make_unique<Network>(File::open(path), threads,
                                              bf16 < 0    ? Bf16::automatic
                                              : bf16 == 0 ? Bf16::off
                                                          : Bf16::on);
           }),
           py::arg("path"), py::arg("threads"), py::arg("bf16"))
      .def("run", &run, py::arg("x").noconvert(), py::arg("channels_last"))
      .def_property_readonly("input_shape", [](const Network& n) { return dims(n.input_shape()); })
      .def_property_readonly("output_shape", [](const Network& n) { return dims(n.output_shape()); })
      .def_property_readonly("threads", &Network::threads)
      .def_property_readonly("bf16", &Network::bf16)
      .def_property_readonly("operations", &Network::operations)
      .def("weight",
           [](const Network& n, const std::string& layer) {
             const std::vector<float> weight = n.weight(layer);
             return py::array_t<float>(py::ssize_t(weight.size()), weight.data());
           })
      .def("layers", [](Network& n) {
        std::vector<py::tuple> found;
        for (const LayerReport& l : n.layers()) {
          found.push_back(py::make_tuple(l.name, l.plan, l.shape, l.kept, l.weights, l.bytes));
        }
        return found;
      });
}
