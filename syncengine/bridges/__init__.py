"""Other formats: Markdown, and documents of Yjs. Each needs its extra."""
