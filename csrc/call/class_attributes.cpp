// Classes that answer for a few of their attributes at once. autograd looks up five of an autograd Function's at every
// call, by strings that it makes anew, which Python's caches do not know: 1,400 instructions each along the bases.
#include <pybind11/pybind11.h>

#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "call/bind.h"
#include "call/torch_state.h"

namespace nk {

namespace py = pybind11;

namespace {

using Answers = std::vector<std::pair<std::string, PyObject*>>;

// Of a few classes, which live as long as the module does.
std::vector<std::pair<PyObject*, Answers>> answering;

PyObject* answer_first(PyObject* type, PyObject* name) {
    for (const auto& [known, answers] : answering) {
        if (known != type) continue;
        Py_ssize_t length;
        const char* text = PyUnicode_AsUTF8AndSize(name, &length);
        if (text == nullptr) return nullptr;
        for (const auto& [own, value] : answers)
            if (own.size() == static_cast<size_t>(length) && std::memcmp(own.data(), text, own.size()) == 0)
                return Py_NewRef(value);
        break;
    }
    return PyType_Type.tp_getattro(type, name);
}

py::object answering_metaclass(const py::object& base) {
    static PyType_Slot slots[] = {{Py_tp_getattro, reinterpret_cast<void*>(&answer_first)}, {0, nullptr}};
    static PyType_Spec spec = {"neurokern._C.AnsweringMeta", 0, 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, slots};
    return checked(PyType_FromSpecWithBases(&spec, py::make_tuple(base).ptr()));
}

void answer_for(const py::object& type, const py::dict& attributes) {
    Answers answers;
    for (const auto& [name, value] : attributes) answers.emplace_back(py::str(name), value.inc_ref().ptr());
    answering.emplace_back(type.inc_ref().ptr(), std::move(answers));
}

}  // namespace

void register_class_attributes(py::handle module) {
    auto m = py::reinterpret_borrow<py::module_>(module);
    m.def("answering_metaclass", &answering_metaclass, py::arg("base"),
          "A metaclass, derived from base, whose classes `answer_for`.");
    m.def("answer_for", &answer_for, py::arg("type"), py::arg("attributes"),
          "From now on these are type's attributes, looked up without its bases and dictionaries; kept for good.");
}

}  // namespace nk
