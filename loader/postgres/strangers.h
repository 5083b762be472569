// Foreign code that PostgreSQL would run as our role when it reads a table, or writes to it.
#pragma once

#include <string>
#include <vector>

#include "config/source.h"

namespace latchkey::catalogue {

// A join (see found()): s, of one row and one column, `functions`: a JSON array of the functions of
// strangers that reading the table (or, if w.writes, writing it) can run as our role. A stranger is
// a role that cannot act as the owner of each table in `read`, so that its code, run as our role,
// would gain rights. To a superuser, all roles but superusers are strangers.
[[nodiscard]] std::string strangers(const std::vector<const SourceConfig*>& read);

}  // namespace latchkey::catalogue
