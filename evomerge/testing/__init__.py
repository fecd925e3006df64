"""Contract tests that plug-ins run through, shipped so that authors elsewhere can run them too."""
