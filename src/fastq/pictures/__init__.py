"""Reports to look at: charts as SVG, pages of HTML and compact forms for notebooks, from plain numbers.

Nothing here knows the rest of fastq, and nothing is imported before a picture is wanted.
"""
