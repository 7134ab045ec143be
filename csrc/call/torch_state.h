// What the direct way asks of torch before it calls a kernel, each question as cheap as torch answers it.
#pragma once

#include <pybind11/pytypes.h>

namespace nk {

bool is_grad_enabled();
bool is_autocasting();        // on any device
bool is_watched();            // somebody follows each op that torch runs, and would not see ours
bool is_in_mode();            // a part of that, the one that no guard covers: forward-mode AD or a dispatch mode
bool is_profiled();           // a profiler of torch's records what runs
bool is_tensor(PyObject* o);  // torch.Tensor or torch.nn.Parameter, and no other class
bool is_plain(PyObject* o);   // a tensor, and its memory holds its values: neither lazily negated nor lazily zero
bool requires_grad(PyObject* tensor);
bool is_leaf(PyObject* tensor);
bool is_inference(PyObject* tensor);  // made in inference mode
bool is_view(PyObject* tensor);
void increment_version(PyObject* tensor);  // after its memory was written to

pybind11::object checked(PyObject* fresh);  // an exception where it is null
bool is_true(PyObject* answer);             // a new reference, let go; an exception where it is null

// A row of torch's profiler of the name and arguments, for as long as the object lives.
class Profiled {
  public:
    Profiled(PyObject* name, PyObject* const* arguments, Py_ssize_t count);
    ~Profiled();
    Profiled(const Profiled&) = delete;
    Profiled& operator=(const Profiled&) = delete;

  private:
    pybind11::object record_;
};

}  // namespace nk
