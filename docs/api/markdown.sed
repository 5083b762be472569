# The documents beside the headers: a short name for the page, and links to where the files are among the pages.
1s|^# The protocol.*|& {#protocol}|
s#\]\((\.\./)+include/latchkey/([a-z]+)\.(h|hpp)\)#](\2_8\3.html)#g
s#\]\((\.\./tests/vectors|examples)/#](#g
