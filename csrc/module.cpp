// module.cpp: the empty Python module whose import runs the registrations of the library it is linked into.
#include <Python.h>

extern "C" PyMODINIT_FUNC HN_MODULE_INIT(void) {
  static PyModuleDef definition = {
      PyModuleDef_HEAD_INIT, HN_MODULE_NAME, nullptr, -1, nullptr, nullptr, nullptr, nullptr, nullptr};
  return PyModule_Create(&definition);
}
