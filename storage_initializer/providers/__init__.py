"""One scheme family a module, imported only when a URI asks for it (`uri.PROVIDERS`)."""
