"""The tables, their migrations, the writer, and the rows that are written as things happen."""
