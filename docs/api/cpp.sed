# As c.sed, for client.hpp: // becomes ///, and behind code ///<, except in the bodies of functions.
1s|^// |/// @thisfile |
/^inline .*\{$/,/^\}/!{
  s|^( {0,2})//( .*)?$|\1///\2|
  s|^( {0,2}[^ /].*[;,]) +// |\1 ///< |
}
