# The comments of the C headers as Doxygen reads them (FILTER_PATTERNS in Doxyfile): /* becomes /**, and behind
# code /**<. No line is added or removed, so that warnings name the right ones. No text is moved to the side,
# because Doxygen tells code by its distance from the text.

# The first comment is that of the file.
1,/\*\/$/s|^ \*/$| * @file */|

# "---- a title" begins a group of functions. It ends in the empty line before the next, or with extern "C".
0,/^\/\* ---- /!{
  /^$/{
    N
    s|^\n/\* ---- |/** @} */&|
    P
    D
  }
}
s|^/\* ---- (.*) \*/$|/** @name \1 */ /** @{ */|
s|^/\* ---- |/**@name |
/@name [^*]*$/,/\*\/$/s| \*/$| @{ */|
s|^\}$|/** @} */ &|

s|^( *)/\* |\1/**|
s|^(.*[^ /*].*) /\* |\1 /**< |
