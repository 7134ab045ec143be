#include "module.h"

#include "../error.h"

namespace emu::ptx {

uint32_t size_of_type(Name type) {
    const size_t digits = type.find_first_of("0123456789");
    if (digits == Name::npos) return 0;
    uint32_t bits = 0;
    for (size_t i = digits; i < type.size() && type[i] >= '0' && type[i] <= '9'; ++i)
        bits = bits * 10 + static_cast<uint32_t>(type[i] - '0');
    if (type.ends_with("x2")) bits *= 2;
    return bits <= 128 ? bits / 8 : 0;
}

Name Module::line(uint32_t number) const {
    size_t begin = 0;
    for (uint32_t n = 1; n < number && begin < text.size(); ++n) {
        const size_t stop = text.find('\n', begin);
        if (stop == std::string::npos) return {};
        begin = stop + 1;
    }
    Name line = Name(text).substr(begin, text.find('\n', begin) - begin);
    while (!line.empty() && (line.front() == ' ' || line.front() == '\t')) line.remove_prefix(1);
    return line;
}

std::string Module::source(const Position& at) const {
    if (at.file >= files.size() || files[at.file].empty()) return concat("PTX line ", at.line);
    // the build's own folders say nothing to the reader
    std::string file = files[at.file];
    for (const char* root : {"/kernels/", "/tests/"})
        if (const size_t p = file.rfind(root); p != std::string::npos) file = file.substr(p + 1);
    return concat(file, ":", at.source_line);
}

void Module::resolve_aliases() {
    if (aliases.empty()) return;
    const auto resolve = [&](Name& name) {
        if (const auto it = aliases.find(name); it != aliases.end()) name = it->second;
    };
    const auto initial = [&](std::vector<Variable>& list) {
        for (Variable& v : list)
            for (Reference& r : v.references) resolve(r.name);
    };
    initial(variables);
    for (const auto& f : functions) {
        initial(f->variables);
        for (Operand& o : f->operands) resolve(o.name);
    }
}

}  // namespace emu::ptx
