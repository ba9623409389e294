//! The only file that knows sources and consumers together.
