// Code of other people that PostgreSQL would run as our role when it reads a table, or writes to
// it.
#pragma once

#include <string>
#include <vector>

#include "config/source.h"

namespace latchkey::catalogue {

// A join (see found()): s, of one row and one column, `functions`: a JSON array of the functions
// that reading (or, where w.writes, writing) the table can run as our role and that strangers own.
// A stranger could not act as the owner of each table in `read`, so its code, run as our role,
// would gain by it. To a superuser, all but superusers are strangers.
[[nodiscard]] std::string strangers(const std::vector<const SourceConfig*>& read);

}  // namespace latchkey::catalogue
