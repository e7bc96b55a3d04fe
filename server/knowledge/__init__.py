"""Knowledge bases: documents cut into segments, found again by their words.

words      a text to the terms that are indexed
splitting  a document to segments
index      BM25 over the segments of one base
filters    conditions on the documents' metadata
bases      `KnowledgeBases`, which is `services.Knowledge`
folder     bases out of a folder of text files
"""
