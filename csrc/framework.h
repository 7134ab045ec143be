// What the direct way asks of torch before it calls a kernel, each question as cheap as torch answers it.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>

namespace nk {

bool is_grad_enabled();
bool is_autocasting();        // on any device
bool is_watched();            // somebody follows each op that torch runs, and would not see ours
bool is_tensor(PyObject* o);  // torch.Tensor or torch.nn.Parameter, and no other class
bool is_plain(PyObject* o);   // a tensor, and its memory holds its values: neither lazily negated nor lazily zero
bool requires_grad(PyObject* tensor);
bool is_leaf(PyObject* tensor);
bool is_inference(PyObject* tensor);  // made in inference mode
bool is_view(PyObject* tensor);
void increment_version(PyObject* tensor);  // after its memory was written to

pybind11::object checked(PyObject* fresh);  // an exception where it is null

// What all these questions said of an op's tensors last time, for one question that covers them: do they dispatch as
// those did? torch.compile guards its graphs by it.
class Seen {
  public:
    // Whether nothing has changed but shapes, strides and values since `keep`; `wants`: what was kept then.
    bool again(PyObject* const* tensors, Py_ssize_t count, bool& wants);
    // All are plain or None, nobody watches, autocast is off; wants: one of them requires a gradient.
    void keep(PyObject* const* tensors, Py_ssize_t count, bool wants);

  private:
    struct Guard {
        pybind11::object check;
        uint64_t pattern = 0;  // which arguments were None, or came twice
        bool wants = false;
        int trust = 0;
    };
    Guard guards_[2];  // an op is called in turn with and without a gradient, or on images and on rows
};

}  // namespace nk
