"""Plans to source, source to cubins, files to bundles."""
