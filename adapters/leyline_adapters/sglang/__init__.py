"""SGLang: a radix-cache backend that splices cached KV, loaded by SGLang's own plug-in hook."""
