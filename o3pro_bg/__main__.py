"""`python -m o3pro_bg` is the `o3pro-bg` command."""

from o3pro_bg.cli import main

raise SystemExit(main())
