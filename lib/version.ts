/** millrace's version. It is written here, and not read from the package, which a bundle has not beside it. */
export const VERSION = '0.1.0'
