"""Pictures of geometry with PyVista, drawn without a display (extra `geometry`)."""
